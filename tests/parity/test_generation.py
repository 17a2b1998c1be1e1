"""Whole generations with the reference implementation's weights and recorded noise give its concepts.

The reference forces ragged prompts through its loop; here each prompt is read to its own length, so noise is looked
up by the position of the new concept and the row's place among the reference's rows still alive there.
"""

import json

import pytest
import torch
from golden_models import FOLDER, TOLERANCE, arrays, base_lcm, two_tower, two_tower_normalizer

from largeconcept.codec.normalizer import ConceptNormalizer
from largeconcept.diffusion.samplers import ddim_plan
from largeconcept.generate.loop import GenerationOptions, generate_concepts, predict_teacher_forced

DDIM_TOLERANCE = {"rtol": 3e-4, "atol": 3e-4}
BASE = arrays("base_lcm_default_io.npz")
DIFFUSION = arrays("two_tower_default_generate.npz")
INDEX = json.loads((FOLDER / "index.json").read_text())
BASE_CASES = INDEX["base_lcm_default_io.npz"]["generate"]
DIFFUSION_CASES = INDEX["two_tower_default_generate.npz"]["generate"]


def prompts_of(io, name):
    x, lengths = io["x"], io["seq_lens"].tolist()
    if name == "prompt_of_1":
        lengths = [1] * len(x)
    elif name.startswith("full_prompt"):
        lengths = [x.shape[1]] * len(x)
    return [row[:n] for row, n in zip(x, lengths, strict=True)]


@pytest.mark.parametrize("name", sorted(BASE_CASES))
def test_base_lcm(name):
    call, options = BASE_CASES[name]["call"], BASE_CASES[name]["options"]
    prompts = prompts_of(BASE, name)
    ours = GenerationOptions(
        max_concepts=call["max_gen_len"],
        min_concepts=call.get("min_gen_len", 1) + 1,
        stop_threshold=options["eos_threshold"],
        repetition_threshold=options.get("stop_on_repetition_cosine_threshold"),
        keep_last=not options.get("trim_hypotheses", False) or options.get("include_eos_token", False),
    )
    results = generate_concepts(
        base_lcm(), prompts, ConceptNormalizer.identity(16), ours, stop_vector=BASE["generate/eos_vec"]
    )
    for b, (prompt, result) in enumerate(zip(prompts, results, strict=True)):
        whole = torch.cat((prompt, result.concepts))
        torch.testing.assert_close(whole, BASE[f"generate/{name}/hyp{b}"], **TOLERANCE)


class RecordedNoise:
    """The reference's draws: ``initial_latents{i}`` and ``variance_noise{i}`` of the i-th pass of its loop."""

    def __init__(self, case, prompt_lengths, max_gen_len, scale):
        self.case, self.lengths, self.max_gen_len, self.scale = case, prompt_lengths, max_gen_len, scale

    def __call__(self, stream, rows, positions):
        out = []
        for row, position in zip(rows, positions, strict=True):
            alive = [r for r, n in enumerate(self.lengths) if n + self.max_gen_len > position]
            index, place = position - min(self.lengths), alive.index(row)
            if stream == "initial":
                drawn = DIFFUSION[f"gen/{self.case}/initial_latents{index}"]
                assert drawn.shape[0] == len(alive)
                out.append(drawn[place, 0] / self.scale)
            else:
                step = int(stream.removeprefix("variance/"))
                out.append(DIFFUSION[f"gen/{self.case}/variance_noise{index}"][step, place, 0])
        return torch.stack(out)


def diffusion_case(name):
    case = DIFFUSION_CASES[name]
    first = DIFFUSION[f"gen/{name}/initial_latents0"].shape[0]
    x, lengths = DIFFUSION["x"], DIFFUSION["seq_lens"].tolist()
    if case["prompt"] == "full":
        lengths = [x.shape[1]] * first
    prompts = [row[:n] for row, n in zip(x, lengths, strict=False)]
    given = case["options"]
    options = GenerationOptions(
        max_concepts=case["max_gen_len"],
        stop_threshold=None,
        num_inference_steps=given["inference_timesteps"],
        timestep_spacing="meta",
        guidance_scale=given.get("guidance_scale", 1.0),
        guidance_rescale=given.get("guidance_rescale", 0.0),
        initial_noise_scale=given.get("initial_noise_scale", 1.0),
        eta=given.get("ddim_eta", 0.0),
        epsilon_scaling=given.get("epsilon_scaling"),
        clip_noise=100.0,
    )
    noise = RecordedNoise(name, lengths, case["max_gen_len"], options.initial_noise_scale)
    return prompts, options, noise


@pytest.fixture(scope="module")
def normalizer():
    return two_tower_normalizer()


@pytest.mark.parametrize("name", sorted(DIFFUSION_CASES))
def test_two_tower(name, normalizer):
    prompts, options, noise = diffusion_case(name)
    results = generate_concepts(two_tower(), prompts, normalizer, options, noise=noise)
    for b, (prompt, result) in enumerate(zip(prompts, results, strict=True)):
        whole = torch.cat((prompt, result.concepts))
        torch.testing.assert_close(whole, DIFFUSION[f"gen/{name}/hyp{b}"], **DDIM_TOLERANCE)


@pytest.mark.parametrize("name", sorted(DIFFUSION_CASES))
def test_two_tower_visits_the_same_timesteps(name):
    _, options, _ = diffusion_case(name)
    visited = [step.timestep for step in ddim_plan(two_tower().schedule, options)]
    assert visited == DIFFUSION[f"gen/{name}/first_concept/timesteps"].tolist()


@pytest.mark.parametrize("name", [n for n in sorted(DIFFUSION_CASES) if DIFFUSION_CASES[n]["prompt"] == "full"])
def test_two_tower_all_positions_at_once(name, normalizer):
    """Denoising the reference's own continuation in parallel gives it back."""
    prompts, options, noise = diffusion_case(name)
    whole = torch.stack([DIFFUSION[f"gen/{name}/hyp{b}"] for b in range(len(prompts))])
    first = len(prompts[0])

    def padded_noise(stream, rows, positions):
        if positions[0] < first:  # not recorded: these positions are the prompt
            return torch.zeros(len(rows), 16)
        return noise(stream, rows, positions)

    got = predict_teacher_forced(two_tower(), normalizer.normalize(whole), None, options, noise=padded_noise)
    torch.testing.assert_close(normalizer.denormalize(got)[:, first:], whole[:, first:], **DDIM_TOLERANCE)
