"""How fast is it: operations, blocks, training steps, inference, memory, beside other systems.

``attnnet bench`` is the command; :func:`run` the same from Python.

Systems are compared in turn, round after round, so that whatever else the machine does hits all
alike; medians are reported. Each is in a process of its own that is stopped while another is at
work, but in the section cams, where all are in this one. Before anything is timed the outputs are
compared: a system that computes something else is not timed. All systems get the same weights, the
same images and the same number of threads.
"""

from .run import SECTIONS, run

__all__ = ["SECTIONS", "run"]
