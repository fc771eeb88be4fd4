"""Studies: which block, at which stage, and is the difference real?

    >>> plan = attnnet.study.Plan.preset("shapes-quick")
    >>> attnnet.study.run(plan, "studies/quick")
    >>> attnnet.study.Results("studies/quick")        # the table and what it says
    >>> attnnet.study.write_report("studies/quick")   # the page

A plan is a list of independent trainings; each has its own folder.
"""

from .plan import Family, Plan, Run
from .presets import list_plans
from .report import write_report
from .results import Results
from .run import Progress, run

__all__ = [
    "Family", "Plan", "Progress", "Results", "Run", "list_plans", "run", "write_report",
]  # fmt: skip
