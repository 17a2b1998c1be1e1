"""Plans and paragraphs: what ends them, given plans, independence of the batch, seeds; and the same in words."""

from __future__ import annotations

import warnings

import pytest
import torch
from variants import concepts, small_model

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.errors import ConfigError, DataError
from largeconcept.generate.options import GenerationOptions
from largeconcept.generate.planned_texts import given_plans, last_paragraphs, prompt_paragraphs, with_breaks
from largeconcept.generate.planning import generate_planned
from largeconcept.models import PlanningConfig, build_model
from largeconcept.segment import build_segmenter
from largeconcept.types import Document

DIM = 16
PAUSE = concepts(1, 1, seed=9)[0, 0]
STOP = concepts(1, 1, seed=8)[0, 0]
FAST = {"num_inference_steps": 4, "guidance_scale": 2.0}


@pytest.fixture
def normalizer():
    normalizer = ConceptNormalizer.identity(DIM)
    normalizer.center.copy_(torch.linspace(-1, 1, DIM))
    normalizer.scale.copy_(torch.linspace(0.5, 2, DIM))
    return normalizer


def planner(normalizer, name="planning_two_tower"):
    model = small_model(name)
    model.set_break(normalizer.normalize(PAUSE))
    return model


class Script:
    """A predictor that says what it is told, by prompt; it notes what was read."""

    def __init__(self, normalizer, lines):
        self.normalizer, self.lines, self.said = normalizer, lines, [0] * len(lines)
        self.read = [[] for _ in lines]
        self.rows = list(range(len(lines)))

    def __call__(self, *arguments):  # stands for make_predictor
        return self

    def start(self, x, lengths, capacity):
        for row, length in enumerate(lengths):
            self.read[row] += list(self.normalizer.denormalize(x[row, :length]))
        return self

    def select(self, places):
        self.rows = [self.rows[place] for place in places]

    def predict(self, cache, rows):
        assert self.rows == rows
        out = [self.lines[row][self.said[row]] for row in rows]
        for row in rows:
            self.said[row] += 1
        return self.normalizer.normalize(torch.stack(out))

    def extend(self, cache, x):
        for row, one in zip(self.rows, self.normalizer.denormalize(x)):
            self.read[row].append(one)


@pytest.fixture
def run(normalizer, monkeypatch):
    """Return a function that generates from a script and returns the results and the script."""

    def run(lines, prompts=None, plans=None, **options):
        script = Script(normalizer, lines)
        monkeypatch.setattr("largeconcept.generate.planning.make_predictor", script)
        prompts = prompts if prompts is not None else [torch.zeros(0, DIM)] * len(lines)
        settings = GenerationOptions(**{"max_concepts": 50, "plain_ends": False, **options})
        model = planner(normalizer)
        return generate_planned(model, prompts, normalizer, settings, plans=plans, stop_vector=STOP), script

    return run


S = list(concepts(1, 40, seed=5)[0])


def equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_break_ends_a_paragraph_and_is_read_back_exactly(run, normalizer):
    near = normalizer.denormalize(1.3 * normalizer.normalize(PAUSE) + 0.01)
    (found,), script = run([[S[0], S[1], S[2], near, S[3], near, S[4], STOP]])
    equal(found.plans, [S[0], S[3], S[4]])
    equal([one.shape[0] * torch.ones(1) for one in found.paragraphs], [torch.tensor([float(n)]) for n in (2, 0, 0)])
    equal(found.paragraphs[0], [S[1], S[2]])
    assert found.stop_reason == "stop_concept"
    equal(script.read[0], [S[0], S[1], S[2], PAUSE, S[3], PAUSE, S[4]])


def test_the_stop_concept_ends_the_text_where_a_plan_is_due_too(run):
    (found,), _ = run([[S[0], S[1], PAUSE, STOP]])
    assert (len(found.plans), found.stop_reason) == (1, "stop_concept")
    (found,), _ = run([[STOP]])
    assert (found.plans.shape, found.paragraphs, found.stop_reason) == ((0, DIM), [], "stop_concept")
    (found,), _ = run([[STOP, S[1], STOP]], min_concepts=3)
    assert found.stop_reason == "stop_concept"
    equal(found.plans, [STOP])  # too early to stop
    equal(found.paragraphs[0], [S[1]])


def test_long_paragraphs_and_texts_are_ended(run):
    (found,), script = run([S], max_paragraph_concepts=3, max_paragraphs=2)
    assert [len(one) for one in found.paragraphs] == [3, 3]
    assert found.stop_reason == "length"
    equal(script.read[0], [*S[:4], PAUSE, *S[5:9]])  # what was predicted in the place of a forced break is not used
    (found,), _ = run([S], max_paragraph_concepts=3, max_paragraphs=9, max_concepts=6)
    assert [len(one) for one in found.paragraphs] == [3, 1]
    assert found.stop_reason == "length"
    (found,), _ = run([[S[0], S[1], S[1] * 2]], repetition_threshold=0.99)
    assert found.stop_reason == "repetition"
    equal(found.paragraphs[0], [S[1]])


def test_given_plans_take_the_place_of_predicted_ones(run):
    given = torch.stack(S[30:33])
    lines = [[S[0], PAUSE, S[2], S[3], PAUSE, S[5], PAUSE, S[7]]]
    (found,), script = run(lines, plans=[given], max_paragraphs=1)  # as many paragraphs as plans, all the same
    equal(found.plans, given)
    assert found.stop_reason == "plans"
    equal(found.paragraphs[0], [S[0]])
    equal(found.paragraphs[1], [S[3]])
    equal(found.paragraphs[2], [])
    equal(script.read[0], [given[0], S[0], PAUSE, given[1], S[3], PAUSE, given[2]])
    (found,), _ = run([[S[0], STOP, S[2], S[3], PAUSE]], plans=[given[:2]])
    assert [len(one) for one in found.paragraphs] == [1, 1]  # an end before all plans were used is a break
    (first, second), _ = run([[S[0], PAUSE, S[1]], [S[2], S[3], STOP]], plans=[given[:1], None])
    assert (first.stop_reason, second.stop_reason) == ("plans", "stop_concept")
    equal(second.plans, [S[2]])


def test_a_prompt_is_closed_by_a_break_once(run):
    for prompt in (torch.stack(S[:3]), torch.stack([*S[:3], PAUSE])):
        _, script = run([[STOP]], prompts=[prompt])
        equal(script.read[0], [*S[:3], PAUSE])


@pytest.mark.parametrize("name", ["planning", "planning_two_tower", "planning_mse"])
def test_a_text_depends_on_nothing_else_in_the_batch_and_seeds_reproduce(normalizer, name):
    model = planner(normalizer, name)
    prompts = [concepts(1, n, seed=n)[0] for n in (5, 1, 3)]
    plans = [None, concepts(1, 2, seed=7)[0], None]
    options = GenerationOptions(
        num_inference_steps=2,
        seed=3,
        max_paragraphs=3,
        max_paragraph_concepts=3,
        break_threshold=0.2,
        stop_threshold=0.5,
    )

    def write(rows, **changes):
        settings = options.model_copy(update=changes)
        chosen = [prompts[i] for i in rows], normalizer, settings
        return generate_planned(model, *chosen, plans=[plans[i] for i in rows], stop_vector=STOP)

    together = write([0, 1, 2])
    assert len({len(one.flat()) for one in together}) > 1  # they end at different moments
    for i, one in enumerate(together):
        (alone,) = write([i])
        equal(alone.flat(), one.flat())
        assert [len(p) for p in alone.paragraphs] == [len(p) for p in one.paragraphs]
        assert alone.stop_reason == one.stop_reason
    again = write([0, 1, 2])
    assert all(torch.equal(a.flat(), b.flat()) for a, b in zip(again, together))
    if name != "planning_mse":
        other = write([0, 1, 2], seed=4)
        assert any(
            len(a.flat()) != len(b.flat()) or not torch.allclose(a.flat(), b.flat()) for a, b in zip(again, other)
        )


def test_ends_are_drawn_without_guidance(normalizer, monkeypatch):
    from largeconcept.generate import planning

    made = []
    original = planning.make_predictor
    monkeypatch.setattr(
        planning,
        "make_predictor",
        lambda model, options, *rest: made.append(options) or original(model, options, *rest),
    )
    prompt = [concepts(1, 3)[0]]
    for name in ("planning_two_tower", "planning_mse"):
        made.clear()
        options = GenerationOptions(**FAST, max_concepts=2)
        (found,) = generate_planned(planner(normalizer, name), prompt, normalizer, options)
        assert len(found.flat()) == 2
        plain = [one for one in made if (one.guidance_scale, one.initial_noise_scale) == (1.0, 1.0)]
        assert bool(plain) is (name == "planning_two_tower")
        assert all(one.num_inference_steps == 10 for one in plain)
    assert planning._predictor_of_ends(planner(normalizer), GenerationOptions(plain_ends=False), None, 1) is None


def test_bad_input_is_refused(normalizer):
    model, prompt = planner(normalizer), [concepts(1, 2)[0]]
    with pytest.raises(ConfigError, match="no break concept"):
        generate_planned(small_model("planning"), prompt, normalizer)
    assert generate_planned(model, [], normalizer) == []
    for plans in ([], [torch.zeros(0, DIM)], [torch.zeros(1, 3)], [torch.full((1, DIM), torch.nan)]):
        with pytest.raises(DataError, match="plan"):
            generate_planned(model, prompt, normalizer, plans=plans)
    with pytest.raises(DataError, match="no concepts"):
        generate_planned(planner(normalizer, "planning_mse"), [torch.zeros(0, DIM)], normalizer)
    with pytest.raises(DataError, match="prompt 0"):
        generate_planned(model, [torch.zeros(2, 3)], normalizer)


# --- words -----------------------------------------------------------------------------------------------------------

TEXT = "Tim had a red ball. The ball rolled away.\n\nA dog took the ball. The dog ran home."


@pytest.fixture
def pipe(make_pipeline):
    pipe = make_pipeline()
    torch.manual_seed(0)
    body = pipe.model.config
    pipe.model = build_model(PlanningConfig(body=body, plan="first_sentence")).eval()
    for parameter in pipe.model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    pause = pipe.codec.encode(["End of paragraph."])[0]
    pipe.model.set_break(pipe.normalizer.normalize(pause))
    return pipe


def test_a_text_is_continued_paragraph_by_paragraph(pipe):
    out = pipe.plan(TEXT, seed=1, max_paragraphs=2, max_paragraph_concepts=2)
    assert out.prompt_sentences == (
        "Tim had a red ball.",
        "The ball rolled away.",
        "A dog took the ball.",
        "The dog ran home.",
    )
    assert len(out.plans) == len(out.paragraphs) == 2
    assert all(len(one) <= 2 for one in out.paragraphs)
    blocks = [" ".join([plan, *one]) for plan, one in zip(out.plans, out.paragraphs)]
    assert out.text == "\n\n".join(blocks)
    assert out.concepts.plans.shape == (2, 16)
    again = pipe.plan([TEXT, "Tim was sad."], seed=1, max_paragraphs=2, max_paragraph_concepts=2)
    assert again[0].text == out.text
    assert pipe.plan([]) == []


def test_plans_can_be_given_or_edited(pipe):
    first = pipe.plan(TEXT, seed=1, max_paragraphs=2, max_paragraph_concepts=2)
    edited = [first.plans[0], "Tim was sad.", "The dog ran home."]
    out = pipe.plan(TEXT, plans=edited, seed=1, max_paragraph_concepts=2)
    assert out.plans == tuple(edited)
    assert out.stop_reason == "plans"
    assert out.text.count("Tim was sad.") >= 1
    begun = pipe.plan(plans=["Tim was sad."], max_paragraph_concepts=3)
    assert begun.plans == ("Tim was sad.",)
    assert begun.prompt_sentences == ()
    many = pipe.plan([TEXT, TEXT], plans=[["Tim was sad."], None], max_paragraphs=1, max_paragraph_concepts=2)
    assert many[0].plans == ("Tim was sad.",)
    assert many[1].plans == pipe.plan(TEXT, max_paragraphs=1, max_paragraph_concepts=2).plans


def test_other_models_do_not_plan(make_pipeline):
    with pytest.raises(ConfigError, match="does not plan"):
        make_pipeline().plan(TEXT)


@pytest.mark.parametrize("plans", ["Tim was sad.", [], [" "], [3], ["a\0b"]])
def test_what_is_no_plan_is_refused(pipe, plans):
    with pytest.raises(DataError, match="plan"):
        pipe.plan(TEXT, plans=plans)


def test_a_saved_pipeline_still_plans(pipe, tmp_path):
    expected = pipe.plan(TEXT, seed=1, max_paragraphs=1)
    again = type(pipe).from_pretrained(pipe.save_pretrained(tmp_path / "saved"), codec=pipe.codec, device="cpu")
    assert again.plan(TEXT, seed=1, max_paragraphs=1).text == expected.text


def test_prompts_are_laid_out_as_the_data_was():
    segmenter = build_segmenter()
    document = Document("d", text=TEXT, title="A ball", plans=("Losing it.", "Finding it."))

    def laid_out(kind, room=99, document=document):
        return prompt_paragraphs(document, kind, segmenter, None, "here", room)

    plain = [["Tim had a red ball.", "The ball rolled away."], ["A dog took the ball.", "The dog ran home."]]
    assert laid_out("first_sentence") == laid_out(None) == plain
    assert laid_out("title") == [["A ball", *plain[0]], ["A ball", *plain[1]]]
    assert laid_out("given") == [["Losing it.", *plain[0]], ["Finding it.", *plain[1]]]
    assert laid_out("given", document=Document("d", text=TEXT)) == plain
    assert laid_out("given", document=None) == []
    with pytest.warns(UserWarning, match="the last 1 of them"):
        assert laid_out("first_sentence", room=5) == plain[1:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert laid_out("first_sentence", room=6) == plain


def test_parts_of_the_layout():
    assert last_paragraphs([["a"], ["b", "c"], ["d"]], 5) == [["b", "c"], ["d"]]
    assert last_paragraphs([["a", "b", "c"]], 1) == [["a", "b", "c"]]  # one is always read
    assert last_paragraphs([], 3) == []
    x = torch.arange(3.0).view(3, 1)
    assert with_breaks(x, [["a"], ["b", "c"]], torch.tensor([9.0])).flatten().tolist() == [0, 9, 1, 2, 9]
    assert with_breaks(x[:0], [], torch.tensor([9.0])).shape == (0, 1)
    assert given_plans(None, 2, True) == [[], []]
    with pytest.raises(DataError, match="wrong number"):
        given_plans([["a"]], 2, True)
