"""The families that are served: one line each."""

from __future__ import annotations

from collections.abc import Iterable

from safelight.model.families.flux1 import FLUX1
from safelight.model.families.layout import Layout
from safelight.model.weight_files import Network

LAYOUTS: tuple[Layout, ...] = (FLUX1,)


def find_layout(pipeline: object) -> Layout | None:
    """The family of the pipeline that a checkpoint was saved from."""
    return next((layout for layout in LAYOUTS if pipeline in layout.pipelines), None)


def list_served() -> str:
    """In words."""
    return " and ".join(
        f"{layout.title} checkpoints in the diffusers layout: {', '.join(layout.pipelines)}" for layout in LAYOUTS
    )


def all_networks() -> Iterable[Network]:
    """Of any family, each name once."""
    return {network.name: network for layout in LAYOUTS for network in layout.networks}.values()


def all_without_weights() -> Iterable[str]:
    """The names of the components without weights of any family."""
    return dict.fromkeys(name for layout in LAYOUTS for name in layout.without_weights)
