import html.parser
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from edgewright.core.cost import Budget, cost
from edgewright.core.data import read_json
from edgewright.core.errors import BadInput
from edgewright.core.metric import Score
from edgewright.core.result import Result
from edgewright.core.run import RunFolder
from edgewright.core.study import Study
from edgewright.job.design.beside import improvement
from edgewright.report.facts import gather
from edgewright.report.html import duration, interval
from edgewright.report.parts.design import (
    beside_random,
    budget_table,
    chosen_network,
    headline,
    learning_words,
    write_report,
)


@pytest.fixture(scope="session")
def report(made_run):
    return write_report(made_run)


class Reader(html.parser.HTMLParser):
    """What the file refers to, and its text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self.inside = ""

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = tag
        self.references += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append(data)
        elif self.inside != "style":
            self.text += data


@pytest.fixture(scope="session")
def reader(report):
    found = Reader()
    found.feed(report.read_text())
    return found


def test_file_refers_to_nothing_outside_itself(report, reader):
    assert all(reference.startswith("data:image/png;base64,") for reference in reader.references)
    assert not {"link", "iframe", "object", "embed", "base"} & set(reader.tags)
    style = report.read_text().split("<style>")[1].split("</style>")[0]
    assert not re.search(r"url\(|@import|https?:", style)
    assert "default-src 'none'" in report.read_text()[:600].replace("&#x27;", "'")


def test_class_names_stay_text(report, reader):
    text = report.read_text()
    assert "<script>alert(1)" not in text
    assert "<script>alert(1)</script>" in reader.text  # as words
    assert len(reader.scripts) == 3  # figures, plotly, drawing: none came from the data


def test_the_story_is_told(made_run, reader):
    result = made_run.read_result()
    latency = result.costs["latency"].value
    figures = result.metrics.test
    assert f"{figures['accuracy']:.1f} % on held-out test samples in {latency:.3g} ms" in reader.text.replace(
        "\xa0", " "
    )
    assert f"Balanced accuracy: {figures['balanced_accuracy']:.1f}. Macro f1: {figures['macro_f1']:.1f}." in reader.text
    assert "answers are the trained network's on 100 % of 256 samples (logits differs by at most 3e-06)" in reader.text
    assert "budget 0.3 ms and 4 MB file: met." in reader.text.replace("\xa0", " ")
    for heading in ("Does it fit?", "What could have been", "The chosen network", "How it learned", "Where it errs",
                    "How much of each class is found", "What it got wrong", "How long one image takes",
                    "Was the latency predicted well?",
                    "Where the time went", "What it ran on", "To repeat it"):  # fmt: skip
        assert heading in reader.text
    assert "edgewright design --config 'flowers run/plan.yaml' --out 'flowers run-again'" in reader.text
    assert "was refused: latency is 0.31 ms" in reader.text
    assert "counted; the runtime held 246 KB" in reader.text
    assert "writing this report" in reader.text
    assert "images:flowers" in reader.text


def test_nobody_s_folders_are_told(report):
    assert "somebody" not in report.read_text()


def test_scores_that_are_not_finite_do_not_spoil_the_figures(made_run, tmp_path):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(made_run.path, run.path)
    with Study(run.study) as study:
        broken = study.candidates()[0].model_copy(update={"key": "broken", "scores": {"zico": -math.inf}})
        study.record(broken)
    figures = write_report(run).read_text().split('id="figures">')[1].split("</script>")[0]
    assert "by-score" in json.loads(figures, parse_constant=pytest.fail)


def test_misjudged_images_are_those_of_the_study(made_run, made_task, answers, reader):
    matrix, bars, gallery = gather(made_run).pictures.pictures
    targets = made_task.test.targets
    wrong = int((targets != answers).sum())
    assert len(reader.references) == len(gallery.items) == min(12, wrong)
    names = list(made_task.spec.names)
    pairs = [(names.index(item.truth.removeprefix("is ")), names.index(item.said)) for item in gallery.items]
    assert all(truth != said for truth, said in pairs)
    counts = [matrix.counts[truth][said] for truth, said in pairs]
    assert counts == sorted(counts, reverse=True)
    for truth in range(len(names)):
        for said in range(len(names)):
            assert matrix.counts[truth][said] == int(((targets == truth) & (answers == said)).sum())
    recall = {name: 100 * matrix.counts[i][i] / sum(matrix.counts[i]) for i, name in enumerate(names)}
    assert dict(zip(bars.names, bars.values, strict=True)) == pytest.approx(recall)
    assert list(bars.values) == sorted(bars.values)


def test_a_broken_budget_is_the_headline(made_run, tmp_path):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(made_run.path, run.path)
    text = run.result.read_text().replace('"latency_ms": 0.3,', '"latency_ms": 0.1,')
    run.result.write_text(text)
    assert read_json(run.result)["budget"]["latency_ms"] == 0.1
    words = headline(gather(run))
    assert "missed" in words
    assert "times the ceiling of 0.1 ms" in words


@pytest.mark.parametrize(("resolution", "words"), [(32, "32 × 32 px"), ([49, 10], "49 × 10 px")])
def test_the_size_of_the_input_is_told(made_run, resolution, words):
    facts = gather(made_run)
    architecture = {**facts.result.architecture, "resolution": resolution}
    told = chosen_network(replace(facts, result=facts.result.model_copy(update={"architecture": architecture})))
    assert f"enters at {words}" in told


def test_it_says_when_the_network_learned_in_16_bits(made_run):
    facts = gather(made_run)  # its epochs say nothing of precision, as those of older runs
    assert "bfloat16" not in learning_words(facts)
    epochs = [{**epoch, "precision": "bfloat16"} for epoch in facts.epochs]
    assert "computed in bfloat16" in learning_words(replace(facts, epochs=epochs))


def test_a_run_without_figures_still_has_a_report(made_run, tmp_path):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(made_run.path, run.path)
    for name in ("study.db", "study.db-wal", "study.db-shm", "env.json"):
        (run.path / name).unlink(missing_ok=True)
    text = write_report(run).read_text()
    assert "Does it fit?" in text
    assert "How it learned" not in text


def test_a_run_of_version_0_1_has_a_report(shared_data, tmp_path):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(shared_data / "old_runs" / "digits", run.path)
    for place in (run.path, *run.path.iterdir()):
        place.chmod(0o755)  # it may lie where nobody writes
    facts, text = gather(run), write_report(run).read_text()
    assert facts.decides == Score(name="accuracy", value=run.read_result().metrics.on_test)
    assert len(facts.trained) == 8 and all(0 <= one <= 100 for one in facts.trained.values())
    assert "Does it fit?" in text and "What could have been" in text
    figures = json.loads(text.split('id="figures">')[1].split("</script>")[0])
    assert {"by-score", "by-figure"} <= set(figures)


def test_an_unfinished_run_has_none(tmp_path):
    with pytest.raises(BadInput):
        write_report(RunFolder(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_interval_is_wilsons():
    # Wilson 1927 for 81 of 263, as R's prop.test(81, 263, correct = FALSE) gives it: 0.2552680, 0.3662063
    assert interval(100 * 81 / 263, 263) == pytest.approx((25.52680, 36.62063), abs=2e-3)
    assert interval(100, 10)[1] == pytest.approx(100)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"), (3725, "1 h 02 min")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


BROWSER = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--v=0",
           "--virtual-time-budget=8000")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("size", ["1200,4000", "500,6000"])
def test_report_in_a_browser(report, chromium, tmp_path, size):
    command = [
        chromium,
        *BROWSER,
        f"--user-data-dir={tmp_path}",
        f"--window-size={size}",
        "--dump-dom",
        report.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    body = re.sub(r"<script\b.*?</script>", "", done.stdout, flags=re.DOTALL)
    plots = re.findall(r'<div class="plot[ "][^>]*>', body)
    names = [re.search(r'id="([^"]+)"', plot)[1] for plot in plots]
    assert names == ["by-score", "by-figure", "curves", "answers-0", "answers-1", "latency", "predicted"]
    parts = re.split(r'<div class="plot[ "][^>]*>', body)[1:]
    assert ["main-svg" in part for part in parts] == [True] * len(parts)
    assert "alert(1)" in body
    assert "<script>alert" not in body


def elsewhere(made_run, how: str, **device: str):
    """The run's facts, as if it had been for a board."""
    facts = gather(made_run)
    latency = facts.result.costs["latency"].model_copy(update={"how": how})
    costs = {**facts.result.costs, "latency": latency}
    return replace(facts, result=facts.result.model_copy(update={"device": device, "costs": costs}))


def test_a_board_with_a_law_says_whose_latency_and_whose_accuracy_it_is(made_run):
    facts = elsewhere(made_run, "analytic", name="mcu", type="int8", runtime="x-cube-ai", latency_of="a law (of ours)")
    assert "by the device&#x27;s law" in headline(facts) and "for mcu in int8" in headline(facts)
    table = budget_table(facts)
    assert "nothing was measured there" in table and "counted in int8, as it will be shipped" in table
    assert "It is float32; `edgewright export --for mcu --choose` makes it int8 and says what that loses." in table


def test_a_board_without_a_law_says_that_latency_is_this_machines(made_run):
    facts = elsewhere(made_run, "measured", name="pi", type="fp32", cpu="Some Processor", latency_of="this machine")
    assert "on this machine" in headline(facts) and "for pi in fp32" in headline(facts)
    assert "how fast pi is, nobody has said" in budget_table(facts)
    assert "It is float32" not in budget_table(facts)


def test_random_networks_beside_are_told_where_they_were_trained(made_run):
    facts = gather(made_run)
    assert beside_random(facts) == ""
    found = improvement("k", {"k": 66.0, "a": 50.0, "b": 60.0}, ["a", "b"], higher=True)
    result = Result.parse(json.loads(facts.result.model_copy(update={"random": found}).to_json()), "result.json")
    text = beside_random(replace(facts, result=result))
    assert "+20.0 % over the average of 2 random networks" in text and "the best of them +9.1 %" in text


def test_a_cost_that_only_some_devices_give_has_its_row(made_run):
    facts = gather(made_run)
    energy = {"energy": cost("energy", 0.0352, "law"), "area": cost("area", 12.5, "given")}
    result = facts.result.model_copy(
        update={"costs": {**facts.result.costs, **energy}, "budget": Budget(energy_mj=0.044)}
    )
    table = budget_table(replace(facts, result=result))
    for words in ("Energy", "35.2 µJ", "44 µJ", "80 %", "by the device&#x27;s law", "Chip area", "12.5 mm²"):
        assert words in table
    assert table.index("Energy") < table.index("Latency"), "what has a ceiling comes first"
