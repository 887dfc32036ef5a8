"""The page of the strategies: every curve is in it, whole, and it fetches nothing."""

import json
import re

from edgewright.report.parts.regret import write_regret_report
from edgewright.search.regret import Curve, Regret


def curve(last, ratio):
    return Curve(
        mean=[3.0, 2.0, last],
        low=[2.5, 1.5, last * 0.9],
        high=[3.5, 2.5, last * 1.1],
        over_random=ratio,
        best_found=0.25,
        seconds=0.5,
        state_correlation=None,
    )


def test_the_page_holds_every_curve(tmp_path):
    result = Regret(
        space="nb201",
        ceilings={"tables/hw.npz:pixel2": 12.0},
        reward="hard",
        queries=3,
        repeats=4,
        round_size=1,
        seed=0,
        inside=4659,
        best=93.51,
        average=85.01,
        best_improvement=10.0,
        curves={"linas": curve(0.0, 0.0), "nsga2": curve(0.7, 0.7), "random": curve(1.0, 1.0)},
    )
    text = write_regret_report(result, tmp_path / "search.html").read_text()
    assert "http-equiv" in text and "<b>" not in text.split("<script")[0]
    found = re.search(r'id="figures">(.*?)</script>', text, flags=re.DOTALL)
    assert found
    traces = json.loads(found[1])["regret"]["data"]
    assert [t["name"] for t in traces if "name" in t] == ["linas", "nsga2", "random"]
    assert [t["line"]["dash"] for t in traces if "name" in t] == ["solid", "solid", "dash"]
    assert "hw.npz:pixel2 ≤ 12" in text and "+10.00 % over the average" in text
    assert "4,659 networks are inside" in text and "93.51 %" in text and "0.900 to 1.100" in text
