"""Text to sound with eSpeak NG: about 90 of our languages, offline, understandable rather than natural.

The library and its data come with the package ``espeakng-loader`` (extra ``speak``): eSpeak NG 1.52, GPL-3.0-or-later,
https://github.com/espeak-ng/espeak-ng. It is loaded by another process (see ``espeak_worker.py``), is no part of this
library, and has no claim on the sound it makes.

Shape letters: S samples.
"""

from __future__ import annotations

import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np

from largeconcept.codec.speech.audio import Audio
from largeconcept.errors import DataError, DependencyError, LanguageError, missing_extra
from largeconcept.languages import flores, language_name

# FLORES-200 code and voice of eSpeak NG 1.52. Only a language's own voice: no neighbour speaks for it.
_TABLE = """
afr_Latn gmw/af, als_Latn ine/sq, amh_Ethi sem/am, arb_Arab sem/ar, asm_Beng inc/as, azj_Latn trk/az, bak_Cyrl trk/ba,
bel_Cyrl zle/be, ben_Beng inc/bn, bos_Latn zls/bs, bul_Cyrl zls/bg, cat_Latn roa/ca, ces_Latn zlw/cs, cym_Latn cel/cy,
dan_Latn gmq/da, deu_Latn gmw/de, ell_Grek grk/el, eng_Latn gmw/en-US, epo_Latn art/eo, est_Latn urj/et, eus_Latn eu,
fin_Latn urj/fi, fra_Latn roa/fr, gaz_Latn cus/om, gla_Latn cel/gd, gle_Latn cel/ga, grn_Latn sai/gn, guj_Gujr inc/gu,
hat_Latn roa/ht, heb_Hebr sem/he, hin_Deva inc/hi, hrv_Latn zls/hr, hun_Latn urj/hu, hye_Armn ine/hy, ind_Latn poz/id,
isl_Latn gmq/is, ita_Latn roa/it, jpn_Jpan jpx/ja, kan_Knda dra/kn, kat_Geor ccs/ka, kaz_Cyrl trk/kk, kir_Cyrl trk/ky,
kmr_Latn ira/ku, kor_Hang ko, lit_Latn bat/lt, ltg_Latn bat/ltg, ltz_Latn gmw/lb, lvs_Latn bat/lv, mal_Mlym dra/ml,
mar_Deva inc/mr, mkd_Cyrl zls/mk, mlt_Latn sem/mt, mri_Latn poz/mi, mya_Mymr sit/my, nld_Latn gmw/nl, nob_Latn gmq/nb,
npi_Deva inc/ne, ory_Orya inc/or, pan_Guru inc/pa, pap_Latn roa/pap, pes_Arab ira/fa, pol_Latn zlw/pl, por_Latn roa/pt,
quy_Latn qu, ron_Latn roa/ro, rus_Cyrl zle/ru, shn_Mymr tai/shn, sin_Sinh inc/si, slk_Latn zlw/sk, slv_Latn zls/sl,
snd_Arab inc/sd, spa_Latn roa/es, srp_Cyrl zls/sr, swe_Latn gmq/sv, swh_Latn bnt/sw, tam_Taml dra/ta, tat_Cyrl trk/tt,
tel_Telu dra/te, tha_Thai tai/th, tir_Ethi sem/ti, tsn_Latn bnt/tn, tuk_Latn trk/tk, tur_Latn trk/tr, uig_Arab trk/ug,
ukr_Cyrl zle/uk, urd_Arab inc/ur, uzn_Latn trk/uz, vie_Latn aav/vi, yue_Hant sit/yue, zho_Hans sit/cmn,
zho_Hant sit/cmn, zsm_Latn poz/ms
"""
VOICES: dict[str, str] = dict(pair.strip().split(" ", 1) for pair in _TABLE.split(","))
"""FLORES-200 code -> voice."""

_WORKER = Path(__file__).with_name("espeak_worker.py")
_LONGEST_WORD = 50  # characters; its buffers hold 160 bytes
_LONG_WORD = re.compile(rf"(\S{{{_LONGEST_WORD}}})(?=\S)")
_JOINERS = "\u200c\u200d"  # tell letters apart in Persian and in the scripts of India
_NOT_SPOKEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


class EspeakSynthesizer:
    """Speaks with the voices of eSpeak NG.

    Raises:
        DependencyError: the extra ``speak`` is not installed.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise missing_extra("espeakng-loader", "speak") from None
        try:
            self._files = (str(espeakng_loader.get_library_path()), str(espeakng_loader.get_data_path()))
        except RuntimeError as error:
            raise _unusable(error) from None

    @property
    def languages(self) -> tuple[str, ...]:
        """FLORES-200 codes that it speaks."""
        return tuple(VOICES)

    def check_language(self, lang: str) -> str:
        """Return the FLORES-200 code of a language that has a voice.

        Raises:
            LanguageError: unknown, or without a voice.
        """
        code = flores(lang)
        if code not in VOICES:
            raise LanguageError(
                "there is no voice for the language",
                where="lang",
                got=f"{code} ({language_name(code)})",
                expected=f"one of {len(VOICES)}; see docs/speech.md",
                hint="name a Piper voice of this language with --voice VOICE.onnx",
            )
        return code

    def speak(self, text: str, lang: str) -> Audio:
        """Return the text as mono sound, at 22050 Hz; no samples where there is nothing to say.

        What cannot be spoken (control characters, lone surrogates) is left out, and words of more than 50 characters
        are said in parts. Any number of threads may call this.

        Raises:
            DataError: the synthesiser failed on this text.
            DependencyError: the library or its data cannot be loaded.
            LanguageError: the language is unknown, or has no voice.
        """
        voice = VOICES[self.check_language(lang)]
        text = speakable(text)
        if not any(unicodedata.category(character)[0] in "LNS" for character in text):
            return Audio(np.zeros(0, np.float32), 22050)
        # -I and -S: neither the environment nor installed packages play a part, and it starts in 15 ms.
        command = [sys.executable, "-I", "-S", str(_WORKER), *self._files, voice]
        try:
            done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=60 + len(text) / 100)
        except subprocess.TimeoutExpired:
            raise _failed(text, "it takes too long") from None
        except OSError as error:
            raise _unusable(error) from None
        if done.returncode in (3, 4):
            raise _unusable(f"{self._files[1]}, voice {voice}")
        if done.returncode != 0 or len(done.stdout) < 4:
            raise _failed(text, f"exit status {done.returncode}")
        samples = np.frombuffer(done.stdout, "<i2", offset=4).astype(np.float32) / 32768.0
        return Audio(samples, int.from_bytes(done.stdout[:4], "little"))


def speakable(text: str) -> str:
    """Return what of a text can be spoken: composed characters, no controls or surrogates, words of bounded length."""
    kept = "".join(
        character if character in _JOINERS or unicodedata.category(character) not in _NOT_SPOKEN else " "
        for character in unicodedata.normalize("NFC", text)
    )
    return _LONG_WORD.sub(r"\1 ", " ".join(kept.split()))


def _failed(text: str, why: str) -> DataError:
    return DataError(f"eSpeak NG could not speak the sentence ({why})", where="speech", got=text)


def _unusable(got: object) -> DependencyError:
    hint = "reinstall it: pip install --force-reinstall espeakng-loader"
    return DependencyError("the library of espeakng-loader cannot be used", got=got, hint=hint)


__all__ = ["VOICES", "EspeakSynthesizer", "speakable"]
