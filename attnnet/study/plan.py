"""A plan: which networks, blocks, data sets and recipes, and with which seeds; and its runs."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import unknown_name
from ..training.files import plain_file_name
from ..training.presets import preset_fields, preset_for
from ..training.recipe import Recipe
from ..training.table import read_table
from . import checks
from .presets import preset_plan

FIRST_SEED = 42
MOST_RUNS = 10_000
_USUAL = "usual"


@dataclass(frozen=True)
class Family:
    """What runs must share to be compared: network, data set and recipe (its name)."""

    arch: str
    dataset: str
    recipe: str

    def __str__(self) -> str:
        recipe = "" if self.recipe == _USUAL else f", recipe {self.recipe}"
        return f"{self.arch} on {self.dataset}{recipe}"


@dataclass(frozen=True)
class Run:
    """One training of a study.

    Attributes:
        name: of its folder, no other run of the plan has it.
        family: what it can be compared within.
        block: canonical placement, for example ``"NEW_12"``; None: the base network.
        recipe: what to train; the seed is in it.
    """

    name: str
    family: Family
    block: str | None
    recipe: Recipe

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.recipe.seed


@dataclass(frozen=True)
class Plan:
    """Networks x data sets x recipes x (the base and every block at every stage) x seeds.

    Attributes:
        name: of the study.
        networks: for example ``("resnet18",)``.
        datasets: for example ``("cifar100", "folder:PATH")``.
        blocks: names that are crossed with ``stages``, such as ``"CBAM"``, or placements that
            stand as they are, such as ``"CBAM_1+SE_34"``. The base network is always among the
            runs: the others are compared with it.
        stages: sets of stages, for example ``("1", "12")``.
        recipes: name to fields of a ``Recipe`` (``preset`` may name one to start from). Default:
            one, the preset of each network's and data set's kind.
        changes: fields of all recipes to set differently.
        seeds: one run each.
        validation: what is held out of the training images to choose the best epoch on, where a
            recipe does not say: a fraction or a count.
        imports: modules to import first, which register blocks or networks of one's own.

    Raises:
        ValueError: something is unknown (with the nearest match), missing, there twice, or cannot
            be combined, or it makes more than 10,000 runs. Nothing is loaded to find that out.

    The test images choose nothing: they are looked at once, by the epoch that the validation
    images chose.
    """

    name: str = "study"
    networks: tuple[str, ...] = ("resnet18",)
    datasets: tuple[str, ...] = ("shapes",)
    blocks: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    recipes: Mapping[str, Mapping[str, Any]] | None = None
    changes: Mapping[str, Any] | None = None
    seeds: tuple[int, ...] = (FIRST_SEED,)
    validation: float | int = 0.1
    imports: tuple[str, ...] = ()
    _runs: tuple[Run, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checks.imports(self.imports)
        for name, value in checks.tidy(self).items():
            object.__setattr__(self, name, value)
        rows = checks.count_rows(self.blocks, self.stages)
        recipes = len(self.recipes or (_USUAL,))
        _check_count(rows * len(self.networks) * len(self.datasets) * recipes * len(self.seeds))
        object.__setattr__(self, "_runs", tuple(self._make_runs()))
        checks.networks(run for run in self._runs if run.seed == self.seeds[0])

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs: seed by seed, so that a study that is stopped early has whole comparisons."""
        return self._runs

    @property
    def families(self) -> list[Family]:
        """What is compared within, in the plan's order."""
        return list(dict.fromkeys(run.family for run in self.runs))

    def placements(self, family: Family) -> list[str | None]:
        """The rows of a family: None for the base, then the blocks in the plan's order."""
        return list(dict.fromkeys(run.block for run in self.runs if run.family == family))

    def _make_runs(self) -> Iterator[Run]:
        rows = list(self._make_rows())
        made: dict[str, Run] = {}
        for seed in self.seeds:
            for row in rows:
                recipe = copy.copy(row.recipe)  # the fields of a row are checked once
                recipe.seed = seed
                run = Run(f"{row.name}-s{seed}", row.family, row.block, recipe)
                if run.name in made:
                    raise ValueError(
                        f"plan: two runs would be called {run.name}: {run.family} and "
                        f"{made[run.name].family}; give the folders or recipes names that differ "
                        "in more than signs."
                    )
                made[run.name] = run
                yield run

    def _make_rows(self) -> Iterator[Run]:
        """What is trained with each seed: runs whose names and recipes are without theirs."""
        for arch in self.networks:
            placements = checks.placements(arch, self.blocks, self.stages)
            for dataset in self.datasets:
                for kind in self.recipes or {_USUAL: {}}:
                    family = Family(arch, dataset, kind)
                    extra = "" if kind == _USUAL else f"-{kind}"
                    for block in placements:
                        recipe = self._make_recipe(family, block)
                        name = plain_file_name(f"{recipe.name}{extra}")
                        yield Run(name, family, block, recipe)

    def _make_recipe(self, family: Family, block: str | None) -> Recipe:
        fields = dict((self.recipes or {}).get(family.recipe, {}))
        start = fields.pop("preset", None)
        if start is None and self.recipes is None:
            start = preset_for(family.arch, family.dataset)
        ready = preset_fields(start, family.arch) if start else {}
        fields = {**ready, **fields, **(self.changes or {})}
        fields |= {"arch": family.arch, "block": block, "dataset": family.dataset}
        if fields.get("validation") is None:
            fields["validation"] = self.validation
        try:
            return Recipe.from_dict(fields)
        except ValueError as error:
            raise ValueError(f"plan: {family}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values that JSON and TOML can hold; ``from_dict`` reads them."""
        plain: dict[str, Any] = {
            "name": self.name,
            "networks": list(self.networks),
            "datasets": list(self.datasets),
            "blocks": list(self.blocks),
            "stages": list(self.stages),
            "seeds": list(self.seeds),
            "validation": self.validation,
        }
        if self.recipes is not None:
            plain["recipes"] = {name: dict(fields) for name, fields in self.recipes.items()}
        if self.changes:
            plain["recipe"] = dict(self.changes)
        if self.imports:
            plain["imports"] = list(self.imports)
        return plain

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Plan:
        """The plan that a table describes.

        Args:
            table: the keys ``name``, ``networks``, ``datasets``, ``blocks``, ``stages``,
                ``recipes`` (names of presets, or a table of recipes), ``recipe`` (a table of
                fields for all of them), ``seeds`` (a list, or how many), ``validation``,
                ``imports``; ``preset`` names a plan to start from.

        Raises:
            ValueError: an unknown key or preset (with the nearest match), or no plan.
        """
        if not isinstance(table, Mapping):
            raise ValueError(f"plan: got {type(table).__name__}; expected a table of keys.")
        values = dict(table)
        for key in values:
            if key not in (*_KEYS, "preset"):
                raise unknown_name("key of a plan", key, (*_KEYS, "preset"))
        start = values.pop("preset", None)
        if start is not None:
            values = _changed({"name": start, **preset_plan(start)}, values)
        return cls(**{_KEYS[key]: _read(key, value) for key, value in values.items()})

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Plan:
        """A ready plan: ``shapes-quick``, ``resnet18-cifar100``, ``vgg19-cifar10``,
        ``fast-resnet18-cifar100`` or ``fast-vgg19-cifar10``.

        Args:
            name: the preset's name (``list_plans()``, ``attnnet list studies``).
            **changes: keys of ``from_dict`` to set differently.

        Raises:
            ValueError: no such preset (with the nearest match), or a wrong key.
        """
        return cls.from_dict({**changes, "preset": name})

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **changes: Any) -> Plan:
        """Reads a plan from a JSON or TOML file (TOML needs Python 3.11 or newer).

        Args:
            path: a ``.json`` or ``.toml`` file. **changes: keys to set differently.

        Raises:
            ValueError: not a plan, or a wrong key; the message names the file.
            OSError: the file cannot be read.
        """
        try:
            table = read_table(os.fspath(path), "plan")
            if isinstance(table, dict):
                stem = os.path.splitext(os.path.basename(path))[0]
                named = {} if "preset" in table else {"name": stem}
                table = _changed({**named, **table}, changes)
            return cls.from_dict(table)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from None


# Keys of a plan's table, and the attribute that each sets.
_KEYS = {
    "name": "name", "networks": "networks", "datasets": "datasets", "blocks": "blocks",
    "stages": "stages", "recipes": "recipes", "recipe": "changes", "seeds": "seeds",
    "validation": "validation", "imports": "imports",
}  # fmt: skip


def _read(key: str, value: Any) -> Any:
    """A key's value as the attribute holds it; short forms are written out."""
    if key == "seeds" and isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ValueError(f"plan: seeds is {value}; expected a list, or how many: at least 1.")
        _check_count(value)
        return tuple(range(FIRST_SEED, FIRST_SEED + value))
    if key == "recipes" and isinstance(value, (str, list, tuple)):
        names = [value] if isinstance(value, str) else value
        return {name: {"preset": name} for name in _texts(key, names)}
    if key in ("networks", "datasets", "blocks", "stages", "imports") and isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _check_count(runs: int) -> None:
    """Refuses what could not be done anyway, before there is an object for each run."""
    if runs > MOST_RUNS:
        raise ValueError(f"plan: that makes {runs:,} runs; expected at most {MOST_RUNS:,}.")


def _changed(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A plan's table with some keys changed; of ``recipe`` the fields are."""
    found = {**table, **changes}
    both = [part.get("recipe") for part in (table, changes)]
    if all(isinstance(part, Mapping) for part in both):
        found["recipe"] = {**both[0], **both[1]}  # type: ignore[dict-item]
    return found


def _texts(key: str, values: Sequence[Any]) -> Sequence[str]:
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f"plan: {key} holds {value!r}; expected names.")
    return values
