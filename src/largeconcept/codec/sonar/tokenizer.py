"""SONAR's tokens: a SentencePiece model, and around it the marks and languages of the released networks.

The ids are those of the released tables (fairseq2's order; n pieces in the SentencePiece file): 0 padding, 1 unknown, 2
start, 3 end, then piece k of the file at k + 1, the languages from n + 1 on, and three tags for the origin of training
data. A typed ``</s>`` or ``eng_Latn`` is text like any other: marks are put in by number only.

Source: the model cards of https://github.com/facebookresearch/SONAR (MIT) and Duquenne et al. 2023, arXiv 2308.11466.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece

from largeconcept.errors import CheckpointError, DataError, LanguageError, did_you_mean
from largeconcept.io import atomic_write_bytes
from largeconcept.languages import flores

PAD, UNK, BOS, EOS = 0, 1, 2, 3
MAX_TOKENS = 514
"""Positions of the released encoder, language and end mark included."""
UNKNOWN_SOURCE = "ell_Grek"
"""Tag for text in an unknown language: the authors' advice (SONAR issue 21), as the encoder ignores it most easily."""
DATA_TAGS = ("MINED_DATA", "MMT_BT_DATA", "SMT_BT_DATA")
"""Origin of a training pair: mined, or back-translated by a multilingual or a statistical model."""

# The order is that of the released tables, and only nearly the alphabet's.
_CODES = """
ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn amh_Ethi apc_Arab arb_Arab ars_Arab
ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azb_Arab azj_Latn bak_Cyrl bam_Latn ban_Latn bel_Cyrl
bem_Latn ben_Beng bho_Deva bjn_Arab bjn_Latn bod_Tibt bos_Latn bug_Latn bul_Cyrl cat_Latn ceb_Latn ces_Latn
cjk_Latn ckb_Arab crh_Latn cym_Latn dan_Latn deu_Latn dik_Latn dyu_Latn dzo_Tibt ell_Grek eng_Latn epo_Latn
est_Latn eus_Latn ewe_Latn fao_Latn pes_Arab fij_Latn fin_Latn fon_Latn fra_Latn fur_Latn fuv_Latn gla_Latn
gle_Latn glg_Latn grn_Latn guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva hne_Deva hrv_Latn hun_Latn hye_Armn
ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn jpn_Jpan kab_Latn kac_Latn kam_Latn kan_Knda kas_Arab
kas_Deva kat_Geor knc_Arab knc_Latn kaz_Cyrl kbp_Latn kea_Latn khm_Khmr kik_Latn kin_Latn kir_Cyrl kmb_Latn
kon_Latn kor_Hang kmr_Latn lao_Laoo lvs_Latn lij_Latn lim_Latn lin_Latn lit_Latn lmo_Latn ltg_Latn ltz_Latn
lua_Latn lug_Latn luo_Latn lus_Latn mag_Deva mai_Deva mal_Mlym mar_Deva min_Latn mkd_Cyrl plt_Latn mlt_Latn
mni_Beng khk_Cyrl mos_Latn mri_Latn zsm_Latn mya_Mymr nld_Latn nno_Latn nob_Latn npi_Deva nso_Latn nus_Latn
nya_Latn oci_Latn gaz_Latn ory_Orya pag_Latn pan_Guru pap_Latn pol_Latn por_Latn prs_Arab pbt_Arab quy_Latn
ron_Latn run_Latn rus_Cyrl sag_Latn san_Deva sat_Beng scn_Latn shn_Mymr sin_Sinh slk_Latn slv_Latn smo_Latn
sna_Latn snd_Arab som_Latn sot_Latn spa_Latn als_Latn srd_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn swh_Latn
szl_Latn tam_Taml tat_Cyrl tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi taq_Latn taq_Tfng tpi_Latn tsn_Latn
tso_Latn tuk_Latn tum_Latn tur_Latn twi_Latn tzm_Tfng uig_Arab ukr_Cyrl umb_Latn urd_Arab uzn_Latn vec_Latn
vie_Latn war_Latn wol_Latn xho_Latn ydd_Hebr yor_Latn yue_Hant zho_Hans zho_Hant zul_Latn
"""
LANGUAGES: tuple[str, ...] = tuple(_CODES.split())
"""The 202 languages in the order of their ids, as the released tables call them (``sat_Beng`` for ``sat_Olck``)."""

_PIECES, _ENGLISH = 256_000, 256_047  # size of the released model, and where English must then lie
_MARKS = {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": -1}  # the only layout of a file that the ids above stand for
_UNENCODABLE = re.compile("[\ud800-\udfff]")


class SonarTokenizer:
    """Text to ids and back, for any number of pieces and languages.

    Args:
        model: a SentencePiece file; normalisation of text is the file's own.
        languages: codes in the order of their ids.

    Raises:
        CheckpointError: not a SentencePiece file, or one with other marks than unknown 0, start 1, end 2, no padding.
    """

    def __init__(self, model: bytes, languages: Sequence[str] = LANGUAGES) -> None:
        self.model = model
        self._processor: Any = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except (RuntimeError, OSError) as error:
            raise CheckpointError("not a SentencePiece model", where="SONAR tokenizer", got=error) from None
        sp = self._processor
        marks = {"<unk>": sp.unk_id(), "<s>": sp.bos_id(), "</s>": sp.eos_id(), "<pad>": sp.pad_id()}
        if marks != _MARKS:
            raise CheckpointError(
                "not SONAR's kind of SentencePiece model",
                where="SONAR tokenizer",
                got=marks,
                expected=_MARKS,
                hint="SONAR's file is sentencepiece.source.256000.model",
            )
        self.num_pieces = int(sp.GetPieceSize())
        self._labels = tuple(languages)
        self._ids: dict[str, int] = {}
        for i, label in enumerate(self._labels):
            self._ids[flores(label)] = self.num_pieces + 1 + i
        if len(self._ids) != len(self._labels):
            raise CheckpointError("a language is listed twice", where="SONAR tokenizer", got=", ".join(self._labels))
        if self.num_pieces == _PIECES and self._ids.get("eng_Latn") != _ENGLISH:
            raise CheckpointError(
                "the languages are not those of the released model",
                where="SONAR tokenizer, eng_Latn",
                got=self._ids.get("eng_Latn"),
                expected=_ENGLISH,
            )

    @classmethod
    def from_file(cls, path: str | Path, languages: Sequence[str] = LANGUAGES) -> SonarTokenizer:
        """Read a SentencePiece file.

        Raises:
            CheckpointError: the file cannot be read, or is not of the right kind.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise CheckpointError("cannot read the tokenizer", where=path, got=error.strerror) from None
        try:
            return cls(data, languages)
        except CheckpointError as error:
            raise CheckpointError(
                error.problem, where=path, got=error.got, expected=error.expected, hint=error.hint
            ) from None

    def save(self, path: str | Path) -> None:
        """Write the SentencePiece file."""
        atomic_write_bytes(path, self.model)

    # ------------------------------------------------------------------ ids

    @property
    def vocab_size(self) -> int:
        """V = n + 1 + languages + 3: rows of the tables (256 206 as released)."""
        return self.num_pieces + 1 + len(self._labels) + len(DATA_TAGS)

    @property
    def languages(self) -> tuple[str, ...]:
        """FLORES-200 codes in the order of their ids."""
        return tuple(self._ids)

    def language_id(self, code: str | None) -> int:
        """Return the id of a language.

        Args:
            code: FLORES-200 (``sat_Olck`` and ``sat_Beng`` are one language), BCP-47 or ISO 639; ``None`` for an
                unknown source language, which gets :data:`UNKNOWN_SOURCE`.

        Raises:
            LanguageError: unknown, or not one of this model's: ``arb_Latn`` and ``min_Arab`` are not in the released
                one.
        """
        full = flores(UNKNOWN_SOURCE if code is None else code)
        found = self._ids.get(full)
        if found is None:
            raise LanguageError("SONAR does not know the language", got=full, hint=did_you_mean(full, self._ids))
        return found

    def language_ids(self, lang: str | Sequence[str | None] | None, rows: int) -> list[int]:
        """Return the ids for ``rows`` texts of one language, or of one language each.

        Raises:
            LanguageError: as :meth:`language_id`, or the numbers differ.
        """
        if lang is None or isinstance(lang, str):
            return [self.language_id(lang)] * rows
        if len(lang) != rows:
            raise LanguageError("one language per row is needed", where="lang", expected=rows, got=len(lang))
        known = {code: self.language_id(code) for code in set(lang)}
        return [known[code] for code in lang]

    def tag_id(self, tag: str) -> int:
        """Return the id of a data tag, one of :data:`DATA_TAGS`.

        Raises:
            DataError: no such tag.
        """
        if tag not in DATA_TAGS:
            raise DataError("unknown data tag", where="tag", got=tag, hint=did_you_mean(tag, DATA_TAGS))
        return self.num_pieces + 1 + len(self._labels) + DATA_TAGS.index(tag)

    # ------------------------------------------------------------------ text to ids

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text alone, without language and end: pieces, and :data:`UNK` for what has none.

        NUL counts as a space and a lone surrogate as U+FFFD; everything else is left to the file's normalisation.
        """
        found = self._processor.EncodeAsIds([_encodable(text) for text in texts]) if texts else []
        return [[piece + 1 for piece in row] for row in found]

    def encode(
        self, texts: Sequence[str], lang: str | Sequence[str | None] | None, *, tag: str | None = None
    ) -> list[list[int]]:
        """Return ``[language] pieces [end]`` of each text, what the encoder reads.

        Args:
            lang: source language of all texts or of each; ``None`` where it is unknown.
            tag: data tag to put behind the language, as in SONAR's own training; not used for inference.

        Raises:
            LanguageError: as :meth:`language_ids`.
        """
        starts = self.language_ids(lang, len(texts))
        between = [] if tag is None else [self.tag_id(tag)]
        return [[start, *between, *row, EOS] for start, row in zip(starts, self.pieces(texts), strict=True)]

    # ------------------------------------------------------------------ ids to text

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each list of ids.

        Marks, languages and tags give nothing; :data:`UNK` gives ``⁇`` between spaces.
        """
        last = self.num_pieces
        kept = [[i - 1 for i in row if i > EOS or i == UNK] for row in ids]
        kept = [[piece for piece in row if piece < last] for row in kept]
        return [str(text) for text in self._processor.DecodeIds(kept)] if kept else []


def truncate_ids(ids: Sequence[int], limit: int = MAX_TOKENS, *, keep_end: bool = True) -> list[int]:
    """Cut what :meth:`SonarTokenizer.encode` gave to ``limit`` ids.

    Args:
        keep_end: end the cut text with the end mark, so that it looks like a sentence to the encoder. Without it the
            first ``limit`` ids stay as they are, which is what SONAR's own pipeline does.

    Raises:
        DataError: no room for a language and an end mark.
    """
    if limit < 2:
        raise DataError("no room for a text", where="limit", got=limit, expected="≥ 2")
    if len(ids) <= limit:
        return list(ids)
    return [*ids[: limit - 1], EOS] if keep_end else list(ids[:limit])


def _encodable(text: str) -> str:
    return _UNENCODABLE.sub("\ufffd", text).replace("\x00", " ")
