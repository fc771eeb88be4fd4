"""What the study publishes of its networks."""

# (architecture, block, classes): parameters
COUNTS = {
    ("resnet18", None, 100): 11_220_132,
    ("resnet18", "CA_12", 100): 11_225_660,
    ("resnet18", "SE_12", 100): 11_230_372,
    ("resnet18", "SEC_12", 100): 11_230_804,
    ("resnet18", "SA_12", 100): 11_220_536,
    ("resnet18", "AA_1", 100): 11_324_788,
    ("resnet18", "CBAM_1", 100): 11_221_494,
    ("resnet18", "NEW_1", 100): 11_222_382,
    ("vgg19", None, 10): 20_565_834,
    ("vgg19", "AA_1", 10): 20_618_162,
    ("vgg19", "NEW_1", 10): 20_566_959,
    ("vgg19", "NAB_123", 10): 24_781_517,
}
