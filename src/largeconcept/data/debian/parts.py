"""The parts of the corpus: which packages, which files in them, how they are read, under which terms."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from largeconcept.data.debian.apt import Package
from largeconcept.data.debian.text import language_of
from largeconcept.errors import ConfigError, did_you_mean

_HELP_APPS = """
accerciser aisleriot anjuta-common atril-common baobab bijiben brasero-common burner-common caja-actions-common
cheese-common deja-dup devhelp-common easytag endeavour-common engrampa-common eog eom-common epiphany-browser-data
evince-common evolution-common file-roller five-or-more font-manager-common four-in-a-row frogr-data gbrainy geary
gedit-common ghex giggle glabels-data gnome-boxes gnome-calculator gnome-chess gnome-clocks gnome-color-manager
gnome-connections gnome-devel-docs gnome-dictionary gnome-logs gnome-mahjongg gnome-mines gnome-music gnome-nettool
gnome-nibbles gnome-photos gnome-robots gnome-sudoku gnome-system-log gnome-system-monitor gnome-taquin
gnome-terminal-data gnome-tetravex gnome-text-editor gnome-user-docs gnote goobox gthumb-data gtranslator
hamster-time-tracker hitori iagno jhbuild kupfer latexila-data lightsoff malcontent-gui mate-calc-common
mate-control-center-common mate-terminal-common mate-user-guide
"""
_HELP_MORE = (
    "amide balsa glade glom gnome-commander gnumeric-doc gparted gucharmap orca pluma-common rhythmbox-data viking"
)
_HANDBOOKS = """
calligraplan kaddressbook kalgebra-common kate5-data kcalc kgeotag khelpcenter kile-doc kmail kmplot kmymoney-common
konqueror kphotoalbum krusader kstars-data kturtle kxstitch-common partitionmanager rocs step tellico-doc umbrello-data
"""
_CAMPAIGNS = "did dm dw ei httt l low nr sof sota sotbe thot trow tsg ttb utbs"
_DOC = "usr/share/doc"


@dataclass(frozen=True, slots=True)
class Part:
    """A family of documents that is fetched and read in one way.

    Attributes:
        name: what a user calls it.
        src: what the documents carry as their source.
        reader: name of the function in ``readers.py``.
        licence: main licence of the texts; the manifest lists what each package says.
        packages: names or patterns; of a pattern all matches in a suite are taken, in the languages wanted.
        files: regular expression of the files to read, with the groups ``id`` and ``lang`` where the path holds them.
        lang: language of files whose path names none.
        root_id: element that holds the text of an HTML page.
        indexes: kind of apt index the part is read from, instead of packages.
        tools: what must be installed besides apt: ``lxml``, ``rdata`` (Python), ``diatheke`` (program).
        join: translations share their ``id`` (``"id"``), or only inside one package (``"package"``).
        pairs: whether aligned sentence pairs are taken.
        cap: sentences a language at most, chosen by hash of the id.
        lean: whether the part belongs to the lean build.
    """

    name: str
    src: str
    reader: str
    licence: str
    packages: tuple[str, ...] = ()
    files: str = ""
    lang: str | None = None
    root_id: str | None = None
    indexes: str | None = None
    tools: tuple[str, ...] = ()
    join: str = "package"
    pairs: bool = True
    cap: int | None = None
    lean: bool = True

    def select(
        self, suites: Sequence[str], index: dict[str, dict[str, Package]], languages: Container[str]
    ) -> list[Package]:
        """Return the packages of the part from the first suite that has any of them, sorted by name.

        Of packages that a pattern finds, those whose name ends in a language that is not wanted are left out.
        """
        for suite in suites:
            names = index.get(suite, {})
            chosen = {name for name in self.packages if name in names}
            for pattern in (p for p in self.packages if _is_pattern(p)):
                matches = (name for name in names if fnmatchcase(name, pattern))
                chosen |= {name for name in matches if _wanted(name, pattern, languages)}
            if chosen:
                return [names[name] for name in sorted(chosen)]
        return []

    def absent(self, chosen: Iterable[Package]) -> list[str]:
        """Return the names and patterns for which nothing was chosen."""
        names = [package.name for package in chosen]
        return [p for p in self.packages if p not in names and not any(fnmatchcase(name, p) for name in names)]


def _is_pattern(name: str) -> bool:
    return "*" in name or "[" in name


def _wanted(name: str, pattern: str, languages: Container[str]) -> bool:
    """Return whether a package that ``pattern`` found is not of a language that is not wanted."""
    prefix, star, rest = pattern.partition("*")
    if not star or rest or "[" in prefix:
        return True
    suffix = name[len(prefix) :].removesuffix("-dev")
    lang = language_of(suffix) if suffix != "dev" else None
    return lang is None or lang in languages


def _book(name: str, src: str, licence: str, packages: tuple[str, ...], files: str, **more: object) -> Part:
    return Part(name, src, "html_pages", licence, packages, files, tools=("lxml",), **more)  # type: ignore[arg-type]


PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        Part("ddtp", "ddtp", "descriptions", "free, as each package (mixed)", indexes="Translations", join="id"),
        Part("dep11", "dep11", "components", "mostly CC0-1.0 or FSFAP (mixed)", indexes="DEP-11", join="id"),
        _book("libreoffice-help", "lohelp", "MPL-2.0", ("libreoffice-help-*",),
              r"^usr/share/libreoffice/help/(?P<lang>[^/]+)/text/(?P<id>.+\.html)$", root_id="DisplayArea", join="id"),
        Part("gnome", "gnome", "xml_pages", "mostly CC-BY-SA-3.0, some GFDL", tuple(_HELP_APPS.split()),
             r"^usr/share/help/(?P<lang>[^/]+)/(?P<id>(?!.*legal)[^/]+/.*\.(?:page|docbook|xml))$", tools=("lxml",)),
        Part("gnome-more", "gnome", "xml_pages", "mostly GFDL or CC-BY-SA", tuple(_HELP_MORE.split()),
             r"^usr/share/help/(?P<lang>[^/]+)/(?P<id>(?!.*legal)[^/]+/.*\.(?:page|docbook|xml))$", tools=("lxml",),
             lean=False),
        Part("kde", "kde", "xml_pages", "GFDL-1.2+ or LGPL (mixed)", tuple(_HANDBOOKS.split()),
             r"^usr/share/doc/HTML/(?P<lang>[^/]+)/(?P<id>.+\.docbook)$", tools=("lxml",)),
        _book("debian-handbook", "debhandbook", "GPL-2+ or CC-BY-SA-3.0", ("debian-handbook",),
              rf"^{_DOC}/debian-handbook/html/(?P<lang>[^/]+)/(?P<id>[^/]+\.html)$"),
        _book("installation-guide", "instguide", "GPL-2", ("installation-guide-amd64",),
              rf"^{_DOC}/installation-guide-amd64/(?P<lang>[^/]+)/(?P<id>[^/]+\.html)(?:\.gz)?$"),
        _book("debian-reference", "debref", "GPL-2+", ("debian-reference-*",),
              r"^usr/share/debian-reference/(?P<id>[^/.]+)\.(?P<lang>[^/.]+)\.html$", join="id"),
        _book("debian-faq", "debfaq", "GPL-2+", ("debian-faq", "debian-faq-*"),
              rf"^{_DOC}/debian/FAQ/(?:(?P<lang>[^/]+)/)?(?P<id>[^/.]+)(?:\.[^/]*)?\.html(?:\.gz)?$", lang="en",
              join="id"),
        _book("debian-history", "debhistory", "GPL-2+", ("debian-history",),
              rf"^{_DOC}/debian-history/docs/(?P<id>[^/.]+)\.(?P<lang>[^/.]+)\.html(?:\.gz)?$"),
        _book("live-manual", "livemanual", "GPL-3+", ("live-manual-html",),
              rf"^{_DOC}/live-manual/html/live-manual/(?P<id>[^/.]+)\.(?P<lang>[^/.]+)\.html$"),
        Part("wesnoth", "wesnoth", "campaigns", "GPL-2+",
             tuple(f"wesnoth-1.*[0-9]-{name}" for name in _CAMPAIGNS.split()),
             r"^usr/share/games/wesnoth/[^/]+/(?:data/campaigns/(?P<id>.+\.cfg)"
             r"|(?:locale|translations)/(?P<lang>[^/]+)/LC_MESSAGES/[^/]+\.mo)$"),
        Part("crawl", "crawl", "crawl", "GPL-2+", ("crawl-common",),
             r"^usr/share/crawl/dat/descript/(?:(?P<lang>[^/]+)/)?(?P<id>[^/]+\.txt)$", lang="en", pairs=False),
        Part("freeorion", "freeorion", "stringtables", "CC-BY-SA-3.0", ("freeorion-data",),
             r"^usr/share/games/freeorion/default/stringtables/(?P<lang>[a-z]+)\.txt$", lean=False),
        _book("stellarium", "stellarium", "GPL-2+ or CC-BY-SA", ("stellarium-data",),
              r"^usr/share/stellarium/(?P<id>(?:skycultures|landscapes)/[^/]+/description)\.(?P<lang>[^.]+)\.utf8$",
              lean=False),
        Part("gnucash", "gnome", "xml_pages", "GFDL-1.1+", ("gnucash-docs",),
             r"^usr/share/help/(?P<lang>[^/]+)/(?P<id>(?!.*legal)[^/]+/.*\.(?:page|docbook|xml))$", tools=("lxml",),
             lean=False),
        Part("man", "man", "manuals", "GPL-2+, GPL-3+, BSD, GFDL (mixed)", ("manpages", "manpages-*"),
             r"^usr/share/man/(?:(?P<lang>[^/]+)/)?man[0-9]/(?P<id>[^/]+)\.gz$", lang="en", join="id", pairs=False),
        _book("lilypond", "lilypond", "GFDL-1.3+", ("lilypond-doc-html", "lilypond-doc-html-*"),
              rf"^{_DOC}/lilypond[^/]*/html/(?P<id>(?!.*big-page)[^.]+)(?:\.(?P<lang>[a-z]{{2}}))?\.html$", lang="en",
              join="id"),
        _book("anarchism", "anarchism", "GPL-2+", ("anarchism",),
              rf"^{_DOC}/anarchism/html/(?P<id>[^/]+\.html)(?:\.gz)?$", lang="en"),
        _book("python-docs", "pydoc", "PSF-2.0", ("python3.[0-9]*[0-9]-doc",),
              rf"^{_DOC}/python3[^/]*/html/(?P<id>.+\.html)$", lang="en", cap=60_000),
        _book("kernel-docs", "linuxdoc", "GPL-2", ("linux-doc-[0-9]*",),
              rf"^{_DOC}/linux-doc[^/]*/html/(?P<id>(?!translations).+\.html)(?:\.gz)?$", lang="en", cap=60_000),
        Part("bible", "bible", "bibles", "public domain", ("sword-text-web", "sword-text-sparv", "sword-text-kjv"),
             r"^usr/share/sword/.+$", tools=("diatheke",)),
        Part("commentary", "commentary", "commentaries", "public domain", ("sword-comm-mhcc", "sword-comm-tdavid"),
             r"^usr/share/sword/.+$", lang="en", tools=("diatheke",)),
        Part("austen", "austen", "novels", "public domain", ("r-cran-janeaustenr",),
             r"^usr/lib/R/site-library/janeaustenr/data/Rdata\.rd[bx]$", lang="en", tools=("rdata",)),
    )
}  # fmt: skip
"""All parts, in the order in which repeated paragraphs are given to the part that has them first."""


def choose_parts(names: Sequence[str] | None, lean: bool) -> list[Part]:
    """Return the parts asked for, in their fixed order; all (or all lean ones) when ``names`` is ``None``.

    Raises:
        ConfigError: a name is unknown, or none was given.
    """
    if names is None:
        return [part for part in PARTS.values() if part.lean or not lean]
    if isinstance(names, str):
        names = [name for name in re.split(r"[,\s]+", names) if name]
    if not names:
        raise ConfigError("no parts", where="parts", expected="at least one name")
    for name in names:
        if name not in PARTS:
            raise ConfigError("unknown part", where="parts", got=name, hint=did_you_mean(name, PARTS))
    return [part for part in PARTS.values() if part.name in names]
