"""NaN and infinity: where they first appeared, to stop or to go on, and no trace left behind."""

import math

import numpy as np
import pytest

import attnnet
from attnnet.errors import NaNLossError
from attnnet.training import Callback, Trainer
from attnnet.training import checkpoint as checkpoints

from .tiny import Messages, poison, recipe


class Break(Callback):
    """Makes one step go wrong: ``spoil(model)`` before it, ``mend()`` after it."""

    def __init__(self, batch, spoil):
        self.batch, self.spoil, self.mend = batch, spoil, None

    def on_batch_end(self, trainer, result):
        if self.mend is not None:
            self.mend()
            self.mend = None
        if result.epoch == 0 and result.batch == self.batch - 1:
            self.mend = self.spoil(trainer.model)


def nan_output(name):
    """A hook that puts a NaN into the output of one layer."""

    def spoil(model):
        layer = dict(model.named_modules())[name]

        def hook(module, inputs, output):
            return output * float("nan")

        return layer.register_forward_hook(hook).remove

    return spoil


def infinite_gradient(name):
    """A hook that makes the gradient of one parameter infinite."""

    def spoil(model):
        parameter = dict(model.named_parameters())[name]
        return parameter.register_hook(lambda grad: grad * float("inf")).remove

    return spoil


@pytest.mark.parametrize(
    ("spoil", "where"),
    [
        (nan_output("conv"), "the loss is NaN .* in the output of conv (Conv2d)."),
        (nan_output("pool"), "the loss is NaN .* in the output of pool (MaxPool2d)."),
        (infinite_gradient("bn.weight"), "a gradient .* in the gradient of bn.weight."),
        (infinite_gradient("linear.weight"), "a gradient .* in the gradient of linear.weight."),
    ],
)
def test_stop_says_where(tmp_path, spoil, where):
    what, place = where.split(" .* ")
    trainer = Trainer(recipe(), tmp_path, [Break(3, spoil)], progress=False)
    with pytest.raises(NaNLossError) as caught:
        trainer.fit()
    text = str(caught.value)
    assert what in text and place in text and "at epoch 1, step 4 of 7" in text
    assert "nan=continue" in text


def test_broken_weights_end_the_training_in_either_mode(tmp_path):
    def spoil(model):
        poison(model.conv.weight)
        return lambda: None

    trainer = Trainer(recipe(nan="continue"), tmp_path, [Break(2, spoil)], progress=False)
    with pytest.raises(NaNLossError, match=r"the parameter conv\.weight.*no step can help"):
        trainer.fit()


@pytest.mark.parametrize("spoil", [nan_output("bn"), infinite_gradient("linear.bias")])
def test_continue_skips_the_step_and_leaves_no_trace(tmp_path, spoil):
    messages = Messages()
    states = []

    class Watch(Callback):
        def on_batch_end(self, trainer, result):
            states.append((result, trainer.model.state_dict(), attnnet.get_rng_state()))

    trainer = Trainer(
        recipe(nan="continue", epochs=1, warmup_epochs=0.5), tmp_path,
        [Watch(), Break(3, spoil), messages], progress=False,
    )  # fmt: skip
    history = trainer.fit()
    assert [result.skipped for result, _, _ in states] == [i == 3 for i in range(7)]
    (_, before, random_before), (_, after, random_after) = states[2], states[3]
    for name in before:
        assert before[name].tobytes() == after[name].tobytes(), name
    assert random_before == random_after
    assert history[0]["skipped"] == 1 and math.isfinite(history[0]["train_loss"])
    assert sum("The step is skipped." in line for line in messages.lines) == 1
    assert any(before[name].tobytes() != states[4][1][name].tobytes() for name in before)


def test_an_infinite_loss_is_called_that(tmp_path):
    def spoil(model):
        def hook(module, inputs, output):
            big = np.zeros(output.shape, np.float32)
            big[:, 0] = np.inf
            return output + attnnet.tensor(big)

        return model.linear.register_forward_hook(hook).remove

    trainer = Trainer(recipe(), tmp_path, [Break(3, spoil)], progress=False)
    with pytest.raises(NaNLossError, match=r"the loss is (NaN|infinite).*of linear \(Linear"):
        trainer.fit()


def test_what_was_written_before_stays(tmp_path):
    class BreakLater(Callback):
        def on_epoch_begin(self, trainer, epoch):
            if epoch == 2:
                nan_output("relu")(trainer.model)

    with pytest.raises(NaNLossError, match="epoch 3, step 1"):
        Trainer(recipe(), tmp_path, [BreakLater()], progress=False).fit()
    assert checkpoints.load(tmp_path).meta["position"]["epoch"] == 2
    assert len(Trainer.resume(tmp_path, progress=False).fit()) == 4
