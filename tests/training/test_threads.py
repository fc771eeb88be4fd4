"""Several Python threads that train at once: the bits of one after the other."""

import threading

import pytest

import attnnet
from attnnet.training import Trainer

from .tiny import recipe

SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def images():
    return attnnet.data.load("shapes", train_count=64, test_count=20)


def train(seed, images):
    """Weights, rows and the random state after a training with dropout and evaluations."""
    trainer = Trainer(recipe(seed=seed, epochs=3, limit_train=None, limit_test=None), False,
                      progress=False, data=images)  # fmt: skip
    rows = [(row["train_loss"], row["test_loss"]) for row in trainer.fit()]
    weights = {name: array.tobytes() for name, array in trainer.model.state_dict().items()}
    return rows, weights, attnnet.get_rng_state()


def at_once(jobs):
    """What each job gives, all begun together, each in a thread."""
    results, start = [None] * len(jobs), threading.Barrier(len(jobs))

    def run(number):
        start.wait()
        results[number] = jobs[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_trainings_at_once_give_the_bits_of_trainings_in_turn(images):
    in_turn = [train(seed, images) for seed in SEEDS]
    together = at_once([lambda seed=seed: train(seed, images) for seed in SEEDS])
    for seed, alone, beside in zip(SEEDS, in_turn, together, strict=True):
        assert beside is not None, "the training failed"
        assert alone[0] == beside[0] and alone[2] == beside[2], f"seed {seed}"
        assert alone[1] == beside[1], f"seed {seed}: weights"


def test_random_numbers_and_modes_belong_to_their_thread():
    attnnet.manual_seed(7)
    first = attnnet.random.uniform((3,)).tolist()
    seen = []

    def other():
        seen.append((attnnet.get_rng_state(), attnnet.is_grad_enabled()))
        attnnet.manual_seed(7)
        seen.append(attnnet.random.uniform((3,)).tolist())

    with attnnet.no_grad():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert seen == [({"seed": 0, "counter": 0}, True), first]
    assert attnnet.get_rng_state() == {"seed": 7, "counter": 1}
