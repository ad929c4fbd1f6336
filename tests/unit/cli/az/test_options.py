from __future__ import annotations

import pytest

from safelight.cli.az.options import checked_name
from safelight.errors import InvalidRequest


@pytest.mark.parametrize("name", ["", "..", "flux/deployments/blue", "../connections/hub", "flux?x=1", "fl ux", "flüx"])
def test_a_name_that_would_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be a name"):
        checked_name(name)


@pytest.mark.parametrize("name", ["flux", "HuggingFaceTokenConnection", "black-forest-labs-flux.1-schnell", "my_hub"])
def test_other_names_pass_unchanged(name: str) -> None:
    assert checked_name(name) == name
