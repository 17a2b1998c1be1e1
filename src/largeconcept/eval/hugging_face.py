"""Models of Hugging Face as predictors: causal language models continue, instructed ones and seq2seq models summarise.

Only ``transformers`` knows these models, so it must be installed (the extra of that name); nothing stands in for it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from largeconcept.errors import CheckpointError, missing_extra
from largeconcept.eval.predictors import ZERO_SHOT, Item, Mode, Output, grouped, weights_fingerprint, written
from largeconcept.eval.records import digest
from largeconcept.generate.texts import join_sentences
from largeconcept.languages import language_name

if TYPE_CHECKING:
    from largeconcept.types import Segmenter

INSTRUCTIONS: dict[str, str] = {
    "continue": "Continue this text by {number} sentences in {language}. Write nothing else.\n\n{text}",
    "plan": "Continue this text by {number} sentences in {language}. Write nothing else.\n\n{text}",
    "summarize": "Summarize this text in {language}, in at most {number} sentences. Write nothing else.\n\n{text}",
    "expand": "Write the text that this summarizes, in {language}, {number} sentences. Write nothing else.\n\n{text}",
}
"""What an instructed model is told; ``{number}``, ``{language}`` and ``{text}`` are filled in."""
SUMMARY_PREFIX = "summarize: "
"""What T5 was trained to read before a text that it is to summarise (arXiv:1910.10683, section 2.4)."""
MAX_NEW_TOKENS = 48
"""For each sentence that is asked for."""


class HuggingFacePredictor:
    """A causal or a sequence-to-sequence model.

    A causal model without a chat template continues texts; for all else it is given a prompt, or goes on after the
    item's question. One with a template is told what to do. A sequence-to-sequence model summarises.

    Args:
        model: of ``transformers``.
        tokenizer: the model's.
        segmenter: cuts what is written into sentences.
        name: in results.
        prompts: mode -> template with ``{text}``, and if wanted ``{number}`` and ``{language}``; replaces the defaults.
        max_new_tokens: for each sentence asked for.
    """

    whole = False

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        segmenter: Segmenter,
        name: str = "hf",
        *,
        prompts: Mapping[str, str] | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> None:
        self.model, self.tokenizer, self.segmenter, self.name = model, tokenizer, segmenter, name
        self.max_new_tokens = max_new_tokens
        self.seq2seq = bool(getattr(model.config, "is_encoder_decoder", False))
        self.instructed = bool(getattr(tokenizer, "chat_template", None)) and not self.seq2seq
        if self.seq2seq:
            self.prompts = {"summarize": SUMMARY_PREFIX + "{text}"}
        else:
            self.prompts = dict(INSTRUCTIONS) if self.instructed else {"continue": "{text}", "plan": "{text}"}
        self.prompts |= dict(prompts or {})

    @cached_property
    def fingerprint(self) -> str:
        """Of the weights."""
        return weights_fingerprint(self.model)

    def describe(self) -> dict[str, Any]:
        """Return what outputs depend on; see :class:`~largeconcept.eval.predictors.Predictor`."""
        return {
            "kind": "seq2seq" if self.seq2seq else "causal",
            "weights": self.fingerprint,
            "config": digest(str(self.model.config)),
            "template": getattr(self.tokenizer, "chat_template", None) if self.instructed else None,
            "prompts": self.prompts,
            "max_new_tokens": self.max_new_tokens,
            "device": str(self.model.device.type),
        }

    def cannot(self, mode: Mode, items: Sequence[Item]) -> str | None:
        """Return why not."""
        if self._zero_shot(mode):
            silent = [item for item in items if item.question is None]
            if any(item.cross_lingual for item in silent):
                return "cannot be told in which language to write"
            return f"a causal model without a chat template, not to be asked to {mode} otherwise" if silent else None
        if mode not in self.prompts:
            if self.seq2seq:
                return "a sequence-to-sequence model without a prompt for it"
            return "a causal model without a prompt for it"
        if any(item.cross_lingual for item in items) and "{language}" not in self.prompts[mode]:
            return "its prompt cannot ask for a language"
        return None

    def generate(self, items: Sequence[Item], mode: Mode, seed: int) -> list[Output]:
        """Write, greedily; each text by itself, so that it does not depend on how others are padded."""
        import torch

        outputs: list[Output | None] = [None] * len(items)
        for (budget,), places in grouped(items, "max_concepts").items():
            for place in places:
                began = time.perf_counter()
                with torch.no_grad():
                    text = self._one(items[place], mode, budget)
                lang = items[place].target_lang
                spans = self.segmenter.segment(text, lang) if text.strip() else []
                sentences = [" ".join(span.of(text).split()) for span in spans][:budget]
                notes = {ZERO_SHOT: True} if self._zero_shot(mode) else {}
                outputs[place] = written(sentences, lang, seconds=time.perf_counter() - began, notes=notes)
        return [output for output in outputs if output is not None]

    def _zero_shot(self, mode: Mode) -> bool:
        causal = not (self.seq2seq or self.instructed)
        return causal and mode in ("summarize", "expand") and mode not in self.prompts

    def _one(self, item: Item, mode: Mode, budget: int) -> str:
        source = item.lang or item.target_lang
        prompt = "{text} {question}" if self._zero_shot(mode) else self.prompts[mode]
        for name, value in (
            ("{number}", str(budget)),
            ("{language}", language_name(item.target_lang)),
            ("{question}", item.question or ""),
            ("{text}", join_sentences(item.source.sentences, source)),  # last: a text may hold braces
        ):
            prompt = prompt.replace(name, value)
        if self.instructed:
            message = [{"role": "user", "content": prompt}]
            prompt = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        read = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=not self.instructed)
        new = self.max_new_tokens * budget
        room = _positions(self.model)
        ids, mask = read["input_ids"], read["attention_mask"]
        if room is not None:
            keep = max(1, room if self.seq2seq else room - new)
            # A text that is too long loses its beginning, as prompts of concept models do; a summary's its end.
            part = slice(None, keep) if self.seq2seq else slice(-keep, None)
            ids, mask = ids[:, part], mask[:, part]
            new = min(new, max(1, room - 1)) if self.seq2seq else max(1, min(new, room - ids.shape[1]))
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        made = self.model.generate(
            input_ids=ids.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            max_new_tokens=new,
            do_sample=False,
            num_beams=1,
            pad_token_id=pad,
        )[0]
        tokens = made if self.seq2seq else made[ids.shape[1] :]
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))


def open_hugging_face(
    name: str, *, device: str | None = None, prompts: Mapping[str, str] | None = None
) -> HuggingFacePredictor:
    """Open a model by its folder or its name on the hub.

    Args:
        name: the folder or the name.
        device: an accelerator by default.
        prompts: see :class:`HuggingFacePredictor`.

    Raises:
        DependencyError: ``transformers`` is not installed.
        CheckpointError: no such model, or one of another kind.
    """
    from pathlib import Path

    from largeconcept.devices import default_device, move
    from largeconcept.segment import build_segmenter

    try:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
    except ImportError:
        raise missing_extra("transformers", "transformers") from None
    try:
        config = AutoConfig.from_pretrained(name)
        family = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model, tokenizer = family.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    except Exception as error:  # whatever is wrong with the files, the hub or the network
        lines = str(error).strip().splitlines()
        raise CheckpointError(
            "not a causal or sequence-to-sequence model of transformers",
            where=name,
            got=lines[0] if lines else type(error).__name__,
        ) from None
    move(device or default_device(), model)
    model.eval()
    return HuggingFacePredictor(model, tokenizer, build_segmenter(None), Path(name).name, prompts=prompts)


def _positions(model: Any) -> int | None:
    """Return how many tokens the model's positions allow, where they are a table."""
    for key in ("max_position_embeddings", "n_positions"):
        value = getattr(model.config, key, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


__all__ = ["INSTRUCTIONS", "HuggingFacePredictor", "open_hugging_face"]
