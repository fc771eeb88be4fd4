"""Training: recipe in, history out; checkpoints, interruption and resume in between."""

from .callbacks import BatchResult, Callback, TensorBoard, WandB
from .checkpoint import Checkpoint, load_model
from .evaluate import Evaluation, evaluate
from .history import History
from .once import train
from .presets import list_presets
from .recipe import Recipe
from .trainer import Trainer

__all__ = [
    "BatchResult",
    "Callback",
    "Checkpoint",
    "Evaluation",
    "History",
    "Recipe",
    "TensorBoard",
    "Trainer",
    "WandB",
    "evaluate",
    "list_presets",
    "load_model",
    "train",
]
