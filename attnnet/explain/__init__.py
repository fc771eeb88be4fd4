"""See where a network looks: class activation maps, gradients at the image, attention maps.

    >>> cam = attnnet.explain.cam(model, images, "gradcam", layers="layer4")
    >>> cam.maps                      # (N, H, W) in 0..1; in a notebook, `cam` shows overlays
    >>> gradients = attnnet.explain.guided_backprop(model, images)
    >>> attnnet.explain.guided_product(cam.maps, gradients)
    >>> new, cbam = (attnnet.explain.measure_localisation(m, images, masks) for m in models)
    >>> new - cbam                    # which looks at the object more, with intervals

Everything runs in evaluation mode and leaves the model as it was.
"""

from .attention import AttentionMaps, attention_maps, attention_rows
from .cams import cam
from .faithfulness import (
    average_drop,
    deletion,
    increase_in_confidence,
    insertion,
    measure_faithfulness,
    road,
)
from .gradients import (
    attribution_map,
    guided_backprop,
    integrated_gradients,
    occlusion,
    saliency,
    smoothgrad,
)
from .image import (
    COLORMAPS,
    apply_colormap,
    color_table,
    deprocess,
    grid,
    guided_product,
    overlay,
    strip,
)
from .layers import find_layers, last_layer
from .localisation import energy_inside, mask_iou, measure_localisation, pointing_game
from .measure import Measure, Measures
from .methods import Method, find_method, list_methods, register_method
from .result import CAM

__all__ = [
    "CAM",
    "COLORMAPS",
    "AttentionMaps",
    "Measure",
    "Measures",
    "Method",
    "apply_colormap",
    "attention_maps",
    "attention_rows",
    "attribution_map",
    "average_drop",
    "cam",
    "color_table",
    "deletion",
    "deprocess",
    "energy_inside",
    "find_layers",
    "find_method",
    "grid",
    "guided_backprop",
    "guided_product",
    "increase_in_confidence",
    "insertion",
    "integrated_gradients",
    "last_layer",
    "list_methods",
    "mask_iou",
    "measure_faithfulness",
    "measure_localisation",
    "occlusion",
    "overlay",
    "pointing_game",
    "register_method",
    "road",
    "saliency",
    "smoothgrad",
    "strip",
]
