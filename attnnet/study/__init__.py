"""Studies: which block, at which stage, and is the difference real?

    >>> plan = attnnet.study.Plan.preset("shapes-quick")
    >>> attnnet.study.run(plan, "studies/quick")

A plan is a list of independent trainings; each has its own folder.
"""

from .plan import Family, Plan, Run
from .presets import list_plans
from .run import Progress, run

__all__ = ["Family", "Plan", "Progress", "Run", "list_plans", "run"]
