"""Trains a small network of each family with all blocks, and prints what came out, as digests.

    bits.py THREADS

One line of JSON: {network: {what: sha256}}. Beside test_bits.py, which starts it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reference.narrow import narrowed

import attnnet
from attnnet.models import register_model
from attnnet.models.resnet import BasicBlock, Bottleneck, ResNet
from attnnet.models.vgg import VGG
from attnnet.training import Recipe, Trainer

# name -> (its block, what it is made by). Between them they hold every block.
NETWORKS = {
    "basic": ("SE_1+AA_2+SA_34", lambda *a: ResNet("basic", BasicBlock, (2, 1, 1, 1), *a)),
    "bottleneck": (
        "NEW_1+CBAM_2+CA_3+SEC_4",
        lambda *a: ResNet("bottleneck", Bottleneck, (1, 1, 1, 1), *a),
    ),
    "plain": ("NAB_1+SE_SA_2+SEC_SA_3+NEW_4", lambda *a: VGG("plain", (1, 1, 1, 1, 1), *a)),
    "original": ("AA_ORIGINAL_3", lambda *a: ResNet("original", BasicBlock, (1, 1, 1, 1), *a)),
}


def register(name: str) -> None:
    make = NETWORKS[name][1]

    def narrow(block=None, num_classes=10, in_channels=3, image_size=32):
        with narrowed(4):
            return make(block, num_classes, in_channels, image_size)

    register_model(name, narrow)


def digest(*arrays) -> str:
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def run(name: str, images) -> dict[str, str]:
    """Nine steps with augmentation and all that a network has; an epoch's last batch is small."""
    recipe = Recipe(
        arch=name,
        block=NETWORKS[name][0],
        epochs=3,
        batch_size=16,
        lr=0.02,
        weight_decay=5e-4,
        optimizer="adamw" if name == "bottleneck" else "sgd",
        nesterov=name == "plain",
        clip_norm=1.0,
        average=0.9 if name == "basic" else None,
        cutout=8,
        seed=3,
    )
    trainer = Trainer(recipe, False, progress=False, data=images)
    history = [(row["train_loss"], row["test_loss"]) for row in trainer.fit()]
    model = trainer.model.eval()
    x = np.random.default_rng(1).standard_normal((7, 3, 32, 32)).astype(np.float32)
    with attnnet.no_grad():
        logits = [model(attnnet.Tensor(batch)).numpy() for batch in (x, x[:1])]
    leaf = attnnet.Tensor(x, requires_grad=True)
    model(leaf).sum().backward()
    return {
        "losses": digest(np.array(history)),
        "weights": digest(*trainer.model.state_dict().values()),
        "inference": digest(*logits),
        "gradient in evaluation": digest(leaf.grad.numpy()),
    }


def main() -> None:
    attnnet.set_num_threads(int(sys.argv[1]))
    images = attnnet.data.load("shapes", train_count=39, test_count=20)
    for name in NETWORKS:
        register(name)
    print(json.dumps({name: run(name, images) for name in NETWORKS}))


if __name__ == "__main__":
    main()
