"""A file of policies says what each caller may do; a mistake in it is said, never guessed."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from services.orchestrator.callers.policies import Policies, Policy, parse_policies

DOCUMENT = Path(__file__).parents[3] / "docs/callers.md"
TEXT = """
[policy.default]
requests_per_minute = 60
[policy.gold]
pictures_per_minute = 0
max_priority = "batch"
status = false
[callers]
"acme" = "gold"
"""


def test_a_caller_has_the_policy_of_its_credential_or_its_own_or_the_default() -> None:
    policies = parse_policies(TEXT)
    gold = Policy(pictures_per_minute=0, max_priority="batch", status=False)
    assert policies.find("acme") == gold
    assert policies.find("acme", "default") == policies.find("other")
    assert policies.find("other") == Policy(requests_per_minute=60)
    assert policies.find("other", "gold") == gold
    assert policies.find("other", "silver") is None


def test_the_example_of_the_document_is_a_file_of_policies() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    policies = parse_policies(example)
    assert policies.find("acme") == Policy(pictures_per_minute=1200)
    assert policies.find("other") != Policy()
    for field in fields(Policy):
        assert f"\n{field.name} = " in example


def test_without_a_file_nothing_is_bounded() -> None:
    assert Policies().find("anyone") == Policy()
    assert parse_policies("").find("anyone") == Policy()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("policy", "expected TOML"),
        ("[quota]", "expected tables [policy.NAME] and [callers], got ['quota']"),
        ("policy = 3", "expected tables [policy.NAME] and [callers]"),
        ("[policy]\ngold = 3", "policy.gold: expected a table, got 3"),
        ("[policy.gold]\npictures = 3", "got 'pictures'"),
        ("[policy.gold]\npictures_per_minute = -1", "expected a whole number from 0 up, got -1"),
        ("[policy.gold]\npictures_per_minute = 1.5", "expected a whole number from 0 up, got 1.5"),
        ("[policy.gold]\npictures_per_minute = true", "expected a whole number from 0 up"),
        ("[policy.gold]\nmax_priority = 'high'", "expected interactive or batch, got 'high'"),
        ("[policy.gold]\nstatus = 1", "policy.gold.status: expected true or false, got 1"),
        ("[callers]\nacme = 'gold'", "'acme' has the policy 'gold', which is not there"),
        ("[callers]\nacme = ['default']", "which is not there"),
    ],
)
def test_a_mistake_is_named(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the message is compared below
        parse_policies(text)
    assert problem in str(caught.value)
