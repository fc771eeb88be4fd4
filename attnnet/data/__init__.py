"""Data sets and batches: `load`, `from_arrays`, `Dataset`, `Augmentation`, `Loader`; single files:
`read_image`.

    train, test = attnnet.data.load("shapes")
    loader = attnnet.data.Loader(train, 128, attnnet.data.Augmentation(crop_padding=4, flip=0.5),
                                 shuffle=True, seed=42)
    for images, labels, indices in loader.epoch(0):
        ...
"""

from .arrays import from_arrays
from .dataset import Dataset
from .loader import Augmentation, Batch, Loader
from .pictures import read_image
from .registry import DATASETS, list_datasets, load

__all__ = ["DATASETS", "Augmentation", "Batch", "Dataset", "Loader", "from_arrays",
           "list_datasets", "load", "read_image"]
