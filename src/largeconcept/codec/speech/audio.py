"""Sound files in, as mono sound at 16 kHz, and out.

Importing this module imports neither torch nor the packages that read files.

Shape letters: S samples.
"""

from __future__ import annotations

import re
import warnings
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from largeconcept.errors import ConfigError, DataError, missing_extra
from largeconcept.io import atomic_path

if TYPE_CHECKING:
    from typing import BinaryIO

Samples = NDArray[np.float32]
"""(S,) float32, full scale at ±1."""

SAMPLE_RATE = 16_000
"""Samples of a second that speech encoders expect."""
SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".m4a", ".aac")
"""Names of files that are taken for sound; the last two cannot be read, and the message says how to convert them."""

_LOWEST_RATE = 4_000  # of a file: below it there is not enough of a voice left to understand it
_BLOCK = 1 << 13  # frames of a file that are read at once, and lost together where it is damaged
_WAV_ROOM = 2**32 - 1024  # bytes of samples that the 32-bit sizes of a wav file can tell


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """Mono sound.

    Attributes:
        samples: (S,) float32, full scale at ±1.
        rate: samples of a second.
    """

    samples: Samples
    rate: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate


# --- files ----------------------------------------------------------------------------------------------------------


def read_audio(path: str | Path) -> Audio:
    """Read a wav, flac or ogg file (or what else libsndfile knows) as mono sound at 16 kHz.

    Channels are averaged and any rate is resampled (soxr, "HQ"; see docs/speech.md for what it does to a tone). The
    file is read in blocks, so that only the result is held whole: 230 MB an hour. What the file is, its content
    decides, not its name. A file that is cut off or damaged is read as far as it goes, and a warning says how far.

    Raises:
        DataError: missing, not sound, without a sample, at less than 4 kHz, or with numbers that are not finite.
        DependencyError: the extra ``speech`` is not installed.
    """
    soundfile, soxr = _packages()
    with _opened(path) as file:
        try:
            sound = soundfile.SoundFile(file)
        except (soundfile.SoundFileError, TypeError, ValueError) as error:
            raise DataError(
                "not a sound file that can be read",
                where=path,
                got=_reason(error),
                expected="wav, flac or ogg",
                hint="convert it, for example with: ffmpeg -i FILE out.wav",
            ) from None
        with sound:
            rate = int(sound.samplerate)
            if rate < _LOWEST_RATE:
                raise DataError(
                    "the sample rate is too low for speech",
                    where=path,
                    got=f"{rate} Hz",
                    expected=f"at least {_LOWEST_RATE} Hz",
                )
            resample = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
            parts: list[Samples] = []
            frames = 0
            for block in _blocks(sound, soundfile.SoundFileError, path):
                frames += len(block)
                parts.append(block if resample is None else resample.resample_chunk(block))
            if not frames:
                raise DataError(
                    "holds no sound", where=path, got="0 samples", hint="is it empty, or cut off at its begin?"
                )
            if resample is not None:
                parts.append(resample.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = np.concatenate(parts)
    if not np.isfinite(samples).all():  # finite numbers near the end of their range, resampled
        raise DataError("a sample is too large", where=path, expected="numbers around ±1")
    return Audio(samples, SAMPLE_RATE)


def write_wav(path: str | Path, audio: Audio) -> None:
    """Write sound as a 16-bit mono wav file, atomically; what lies beyond ±1 is clipped.

    Raises:
        ConfigError: another name than ``.wav``.
        DataError: a number that is not finite, more sound than a wav file holds, or a file that cannot be written.
    """
    path = wav_path(path)
    samples = audio.samples
    if 2 * len(samples) > _WAV_ROOM:
        raise DataError("too long for a wav file", where=path, got=f"{audio.seconds:.0f} s")
    if not np.isfinite(samples).all():
        raise DataError("a sample is not finite", where="audio", got=f"sample {int(np.argmin(np.isfinite(samples)))}")
    whole = np.round(np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2")
    try:
        with atomic_path(path) as temporary, wave.open(str(temporary), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(audio.rate)
            file.writeframes(whole.tobytes())
    except OSError as error:
        raise DataError("cannot be written", where=path, got=error.strerror or error) from None


def wav_path(path: str | Path) -> Path:
    """Return the path of a sound file to write.

    Raises:
        ConfigError: another name than ``.wav``.
    """
    path = Path(path)
    if path.suffix.lower() != ".wav":
        raise ConfigError(
            "sound is written as wav", where=path, expected="a name that ends in .wav", got=path.suffix or "none"
        )
    return path


def is_sound(name: str | Path) -> bool:
    """Return whether a file's name is one of sound."""
    return Path(name).suffix.lower() in SOUND_SUFFIXES


def _packages() -> tuple[Any, Any]:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: the package is there, its library is not
        raise missing_extra("soundfile", "speech") from None
    try:
        import soxr
    except ImportError:
        raise missing_extra("soxr", "speech") from None
    return soundfile, soxr


def _opened(path: str | Path) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except FileNotFoundError:
        raise DataError("file not found", where=path) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DataError("cannot be read", where=path, got=getattr(error, "strerror", None) or error) from None


def _blocks(sound: Any, failure: type[Exception], path: str | Path) -> Iterator[Samples]:
    """Yield the mean of the channels block by block; warn where the file ends before it should."""
    announced, frames, problem = max(int(sound.frames), _announced(sound)), 0, ""
    # As long as a file can be wound, soundfile seeks to where it is after every block; mp3 then loses what its frames
    # lend to the next ones, and half of the level of a tone with it.
    sound.seekable = lambda: False
    while True:
        try:
            block = sound.read(_BLOCK, dtype="float32", always_2d=True)
        except failure as error:
            problem = _reason(error)
            break
        if not len(block):
            break
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            at = (frames + int(np.argmin(finite))) / sound.samplerate
            raise DataError(f"a sample is not finite, at {at:.3f} s", where=path, got="NaN or infinity")
        frames += len(block)
        yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
    if frames and (problem or frames < announced):
        told = f"{path} is cut off or damaged: read {frames / sound.samplerate:.2f} s"
        of = f" of {announced / sound.samplerate:.2f} s" if announced > frames else ""
        warnings.warn(f"{told}{of}{f' ({problem})' if problem else ''}", UserWarning, stacklevel=3)


def _announced(sound: Any) -> int:
    """Frames that a wav file says it has; 0 where libsndfile found as many, or the writer did not know."""
    match = re.search(r"^data : (\d+) \(should be \d+\)", sound.extra_info, re.MULTILINE)
    if match is None or sound.format not in ("WAV", "WAVEX"):
        return 0
    size = re.search(r"^ +Block Align +: (\d+)", sound.extra_info, re.MULTILINE)
    told = int(match.group(1))
    return told // int(size.group(1)) if size and int(size.group(1)) and told < 2**31 - 1 - 2**16 else 0


def _reason(error: Exception) -> str:
    """What libsndfile says, without the name of the file."""
    return str(getattr(error, "error_string", error)).strip().rstrip(".")


__all__ = [
    "SAMPLE_RATE",
    "SOUND_SUFFIXES",
    "Audio",
    "Samples",
    "is_sound",
    "read_audio",
    "wav_path",
    "write_wav",
]
