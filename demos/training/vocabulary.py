"""The words that site logbooks are written with, split so that evaluation names are never trained on."""

from __future__ import annotations

import string
import zlib
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from random import Random

Split = Literal["train", "eval"]


def _split(text: str) -> list[str]:
    return text.split()


FIRST_NAMES = _split("""
Wim Ada Bela Carl Dina Emil Faye Gus Hana Ivan Jana Karl Lena Milo Nora Omar Petra Quinn Rosa Stefan Tara Ugo
Vera Walt Xenia Yusuf Zoe Amir Britt Cleo Dario Elif Fritz Greta Hugo Ines Jonas Kaya Lars Mira Nils Olga Paul
Rita Sven Thea Uma Viktor Wanda Yara Aldo Berta Chen Diego Edda Felix Gina Henk Ida Joris Kofi Lotte Marco Nadia
Otto Pia Rasmus Selma Tomas Ulla Vito Anouk Bruno Celia Dmitri Esra Finn Goran Heidi Imran Judit Kenji Leila
Mateo Nuria Oskar Priya Ravi Sanna Tariq Ursula Vikram Yoko Zeno Abena Boris Carmen Dalia Enzo Farid Gemma Halim
Ilse Jorge Katya Linus Maeve Noor Pablo Ronja Silas Tilda
""")

LAST_NAMES = _split("""
Okafor Lindqvist Moreau Tanaka Becker Novak Silva Haddad Jensen Kowalski Rossi Dubois Petrov Yilmaz Garcia Meyer
Svensson Ivanov Costa Nakamura Fischer Horvat Mensah Larsen Vogel Marino Sato Weber Popescu Andersen Nguyen
Schmidt Ortega Bakker Farrell Kimura Lopez Murphy Nilsen Owusu Pereira Quist Romano Santos Takacs Ueda Varga
Winter Yamada Zeller Abbott Brandt Castro Doyle Ekberg Ferrari Gruber Hansen Ibrahim Janssen Keller Lund Molnar
Nagy Olsen Palmer Rahman Steiner Torres Ulrich Visser Wallin Aziz Bergman Chandra Dahl Eriksen Fontaine Greco
Hofer Iqbal Jovanovic Khan Lehmann Mazur Noguera Oduya Patel Richter Salonen Thorne Unger Vasquez Wagner Abara
Bianchi Cohen Dvorak Engel Fabre Galli Hidaka Ilves Jung Klein Leroy Morita
""")

ADJECTIVES = _split("""
amber steel wooden blue heavy spare yellow brass old narrow silver round green copper portable long red rubber
grey folding short white plastic small black iron wide orange hollow double electric spiral purple flat cracked
rusty polished sealed hinged loose painted glass tall quiet magnetic striped leather canvas nylon marble oval
bronze velvet curved square triple damp ivory scarlet crimson tinted woven
""")

NOUNS = _split("""
valve ladder pump crate cable lamp drill barrel trolley generator filter hose panel cabinet scale motor fan
compressor bucket winch tank sensor battery radio helmet scanner pallet hoist bench toolbox printer lantern rope
tripod heater shelf antenna gauge switch chain wheel anvil beacon camera cutter cylinder damper duct engine
extinguisher flange funnel gasket grinder hammer hatch jack kettle lever meter mixer nozzle pipe piston pulley
ramp reel saw shovel spindle stove tarp torch turbine vice wrench
""")

PLACE_PREFIXES = _split("""
north south east west upper lower old new inner outer main rear front central far long high back second third
stone timber river harbour garden hill lake mill forest canal
""")

PLACE_NOUNS = _split("""
loft yard gate hall dock shed tower cellar workshop office corridor bay warehouse lobby stairs roof bridge
garage laboratory kitchen depot platform tunnel pier hangar annex barn terrace archive canteen courtyard
boathouse ramp silo studio vault quay
""")

_ONSETS = _split("b br c ch d dr f g gr h j k kl l m n p pr r s sh st t tr v w y z")
_VOWELS = _split("a e i o u a e i o ai ea ou")
_CODAS = ["", "", "", "n", "l", "r", "s", "m", "k", "t", "d", "nd", "rt", "ll", "sk", "x"]
_LAST_ENDINGS = _split("son sen ov ski ez ini ic ard wood er man ani off eau ira ade well ton")
_FIRST_ENDINGS = ["a", "o", "e", "in", "us", "ia", "el", "an", "y", "is", "or", "ina"]

# One name or word in this many belongs to the evaluation set alone.
_HELD_OUT_NAMES = 5
_HELD_OUT_WORDS = 8


def split_of(word: str, share: int) -> Split:
    """Which set a word belongs to: by checksum, so that it never depends on a list's order."""
    return "eval" if zlib.crc32(word.encode()) % share == 0 else "train"


def _words(words: list[str], split: Split, share: int) -> list[str]:
    return [word for word in words if split_of(word, share) == split]


def _invented(rng: Random, endings: list[str], split: Split) -> str:
    while True:
        middle = rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
        if rng.random() < 0.3:
            middle += rng.choice(_ONSETS) + rng.choice(_VOWELS)
        word = (middle + rng.choice(endings)).capitalize()
        if split_of(word, _HELD_OUT_NAMES) == split:
            return word


class Words:
    """What one split may use. Evaluation objects and places mix unseen words with unseen pairs of seen ones."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self.first_names = _words(FIRST_NAMES, split, _HELD_OUT_NAMES)
        self.last_names = _words(LAST_NAMES, split, _HELD_OUT_NAMES)
        own = [_words(words, split, _HELD_OUT_WORDS) for words in (ADJECTIVES, NOUNS, PLACE_PREFIXES, PLACE_NOUNS)]
        everything = (ADJECTIVES, NOUNS, PLACE_PREFIXES, PLACE_NOUNS)
        # Too few held-out words to fill a document: evaluation draws its other half from all words.
        mixed = [words if split == "train" else words * 4 + every for words, every in zip(own, everything, strict=True)]
        self.adjectives, self.nouns, self.place_prefixes, self.place_nouns = mixed

    def first_name(self, rng: Random) -> str:
        return rng.choice(self.first_names) if rng.random() < 0.5 else _invented(rng, _FIRST_ENDINGS, self.split)

    def last_name(self, rng: Random) -> str:
        return rng.choice(self.last_names) if rng.random() < 0.5 else _invented(rng, _LAST_ENDINGS, self.split)

    def adjective(self, rng: Random) -> str:
        """Now and then a make instead of an adjective: a word that no list holds."""
        return rng.choice(self.adjectives) if rng.random() < 0.8 else _invented(rng, _LAST_ENDINGS, self.split)

    def place_prefix(self, rng: Random) -> str:
        return rng.choice(self.place_prefixes) if rng.random() < 0.8 else _invented(rng, _LAST_ENDINGS, self.split)

    def jobs(self, rng: Random, wanted: int) -> list[str]:
        """Names of jobs such as K47, all different; few letters and numbers in a log, so that neither alone tells."""
        letters = rng.sample(string.ascii_uppercase, len(string.ascii_uppercase))
        numbers = rng.sample(range(10, 100), 90)
        for size in range(3, 27):
            names = [f"{letter}{number}" for letter in letters[:size] for number in numbers[: 2 * size]]
            names = [name for name in names if split_of(name, _HELD_OUT_NAMES) == self.split]
            if len(names) >= wanted:
                return rng.sample(names, wanted)
        raise ValueError(f"there are not {wanted} names of jobs")

    def pair_allowed(self, pair: str) -> bool:
        """Pairs such as 'amber valve' are split too, so that evaluation shows pairs never trained on."""
        return split_of(pair, _HELD_OUT_NAMES) == self.split
