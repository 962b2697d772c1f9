"""What a process of another machine had claimed, when somebody knows that it is gone."""

import json
from dataclasses import asdict, replace

from align.store.store import Store

from .helpers import MANIFEST, commit, make_plan


def test_claims_of_a_process_that_was_buried_are_free_again(tmp_path):
    plan = make_plan(3)
    with Store(tmp_path, MANIFEST, plan, shared=True) as here:
        there = replace(here._lock.owner, host="elsewhere", token="gone")
        owners = json.loads((tmp_path / ".lock").read_text())
        (tmp_path / ".lock").write_text(json.dumps([*owners, asdict(there)]))
        (tmp_path / "claims").mkdir()
        (tmp_path / "claims" / plan[0].key).write_text(json.dumps(asdict(there)))
        assert here.claim(plan[1])
        assert not here.claim(plan[0])
        here.bury("gone")
        assert here.claim(plan[0])
        assert [owner["token"] for owner in json.loads((tmp_path / ".lock").read_text())] == [
            here._lock.owner.token
        ]
        for item in plan:
            commit(here, item)
    assert not (tmp_path / ".lock").exists()
