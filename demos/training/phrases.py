"""How log entries and the questions about them are worded. `{p}` person, `{q}` second person, `{o}` object,
`{l}` place, `{n}` amount."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of entry. `held_out` wordings appear in evaluation documents only, `kindred` ones in training only: these
    show the former's words in another order, for what a word means can be learnt only where it is seen."""

    name: str
    entries: tuple[str, ...]
    held_out: tuple[str, ...]
    kindred: tuple[str, ...]
    by_object: tuple[str, ...] = ()
    by_person: tuple[str, ...] = ()
    by_place: tuple[str, ...] = ()


KINDS: tuple[Kind, ...] = (
    Kind(
        "moved",
        (
            "{p} moved the {o} to the {l}",
            "The {o} was moved to the {l} by {p}",
            "{p} carried the {o} over to the {l}",
            "Into the {l} went the {o}, moved by {p}",
            "For the {l}, {p} moved the {o} out of storage",
        ),
        ("{p} pushed the {o} across to the {l}",),
        ("The {o} was pushed across to the {l} by {p}",),
        ("Who moved the {o}?", "By whom was the {o} moved?", "Where was the {o} moved?"),
        ("What did {p} move?", "Which thing was moved by {p}?"),
        ("What was moved to the {l}?", "What went into the {l}?"),
    ),
    Kind(
        "handed over",
        (
            "{p} handed the {o} over to {q}",
            "{q} received the {o} from {p}",
            "The {o} was handed over by {p} to {q}",
            "From {p} the {o} was passed on to {q}",
        ),
        ("The {o} went from {p} to {q} by hand",),
        ("To {q} went the {o} by hand, from {p}",),
        ("Who handed over the {o}?", "Who received the {o}?", "To whom was the {o} handed over?"),
        ("What did {p} hand over?",),
    ),
    Kind(
        "sold",
        (
            "{p} sold the {o} to {q} for {n} crowns",
            "The {o} was sold to {q} for {n} crowns by {p}",
            "For {n} crowns {q} bought the {o} from {p}",
            "{q} paid {p} {n} crowns for the {o}",
        ),
        ("Sold to {q} for {n} crowns: the {o}, by {p}",),
        ("Sold by {p}: the {o}, to {q} for {n} crowns",),
        ("Who sold the {o}?", "Who bought the {o}?", "What did the {o} cost?"),
        ("What did {p} sell?",),
    ),
    Kind(
        "repaired",
        (
            "{p} repaired the {o} in the {l}",
            "The {o} in the {l} was repaired by {p}",
            "In the {l}, {p} fixed the {o}",
            "After {n} hours the {o} was repaired by {p}",
            "{p} took {n} minutes to fix the {o}",
        ),
        ("The {o} works again since {p} repaired it in the {l}",),
        ("The {o} in the {l} works again since {p} repaired it",),
        ("Who repaired the {o}?", "Who fixed the {o}?", "By whom was the {o} repaired?"),
        ("What did {p} repair?", "What was fixed by {p}?"),
        ("What was repaired in the {l}?",),
    ),
    Kind(
        "inspected",
        (
            "{p} inspected the {o} and found {n} faults",
            "The {o} was inspected by {p} in the {l}",
            "At the {l}, the {o} was checked by {p}",
            "{p} checked the {o} near the {l}",
            "With {n} faults the {o} failed the inspection by {p}",
        ),
        ("During a round of the {l}, {p} inspected the {o}",),
        ("During a round, {p} inspected the {o} of the {l}",),
        ("Who inspected the {o}?", "Who checked the {o}?", "By whom was the {o} inspected?"),
        ("What did {p} inspect?", "What was checked by {p}?"),
        ("What was inspected at the {l}?",),
    ),
    Kind(
        "delivered",
        (
            "{p} delivered the {o} to the {l}",
            "The {o} arrived at the {l}, delivered by {p}",
            "A truck brought the {o} to the {l} and {p} signed for it",
            "At the {l}, {p} accepted delivery of the {o}",
        ),
        ("Delivered to the {l}: the {o}, signed for by {p}",),
        ("Delivered by {p}: the {o}, signed for at the {l}",),
        ("Who took delivery of the {o}?", "Where was the {o} delivered?", "Who delivered the {o}?"),
        ("What did {p} deliver?",),
        ("What was delivered to the {l}?", "What arrived at the {l}?"),
    ),
    Kind(
        "met",
        (
            "{p} met {q} at the {l}",
            "At the {l}, {p} met {q} about the {o}",
            "{q} and {p} met for {n} minutes in the {l}",
            "In the {l} there was a meeting of {p} with {q}",
        ),
        ("{p} sat down with {q} in the {l}",),
        ("In the {l}, {q} and {p} sat down with each other",),
        ("Which meeting was about the {o}?",),
        ("Whom did {p} meet?", "Where did {p} meet someone?"),
        ("Who met at the {l}?", "Which meeting was held in the {l}?"),
    ),
    Kind(
        "measured",
        (
            "{p} measured {n} degrees at the {o}",
            "The {o} showed {n} degrees when {p} read it",
            "A reading of {n} bar was taken from the {o} by {p}",
            "In the {l}, {p} read {n} bar from the {o}",
        ),
        ("Reading of the {o} by {p}: {n} bar",),
        ("Reading in the {l} by {p}: {n} bar of the {o}",),
        ("What did the {o} show?", "Who measured the {o}?", "Which reading was taken from the {o}?"),
        ("What did {p} measure?",),
        ("What was measured in the {l}?",),
    ),
    Kind(
        "damaged",
        (
            "The {o} broke down in the {l}",
            "{p} found the {o} damaged in the {l}",
            "In the {l} the {o} fell over and {p} reported it",
            "Damage to the {o} was reported by {p}",
        ),
        ("{p} dropped the {o} and damaged it",),
        ("When {p} dropped it the {o} was damaged and left",),
        ("Who reported damage to the {o}?", "How was the {o} damaged?", "Where did the {o} break?"),
        ("Which damage did {p} report?",),
        ("What was damaged in the {l}?",),
    ),
    Kind(
        "ordered",
        (
            "{p} ordered the {o} for {n} crowns",
            "The {o} was ordered by {p} for the {l}",
            "For the {l}, {p} asked for the {o}",
            "An order for the {o} was signed by {p}",
        ),
        ("On order from {p}: the {o}, meant for the {l}",),
        ("On order, and meant for the {l}: the {o}, from {p}",),
        ("Who ordered the {o}?", "By whom was the {o} ordered?"),
        ("What did {p} order?",),
        ("What was ordered for the {l}?",),
    ),
    Kind(
        "locked",
        (
            "{p} locked the {l}",
            "The {l} was locked by {p} with {n} people gone",
            "{q} gave {p} the key and the {l} was locked",
            "{p} locked the {o} away in the {l}",
        ),
        ("With the key from {q}, {p} locked the {l}",),
        ("With the key from {q} the {l} was locked by {p}",),
        ("Who locked away the {o}?",),
        ("What did {p} lock?",),
        ("Who locked the {l}?", "By whom was the {l} locked?"),
    ),
    Kind(
        "cleaned",
        (
            "{p} cleaned the {l}",
            "The {l} was swept by {p} and {q}",
            "In the {l}, {p} cleaned the {o}",
            "The {o} was washed by {p}",
        ),
        ("{p} spent {n} minutes cleaning the {l}",),
        ("{n} minutes were spent cleaning the {l} by {p}",),
        ("Who cleaned the {o}?",),
        ("What did {p} clean?",),
        ("Who cleaned the {l}?", "By whom was the {l} cleaned?"),
    ),
)

# Said at the end of about one entry in three, so that an entry's length and ending vary.
TAILS = (
    "before lunch", "at noon", "in the evening", "after the storm", "during the night shift", "without help",
    "as agreed", "in a hurry", "on request", "for the second time", "before sunrise", "at closing time",
)  # fmt: skip

TITLES = ("Site log", "Logbook", "Log of the day", "Station log", "Works diary", "Shift record")
HEADINGS = (
    "Morning", "Afternoon", "Evening", "Night shift", "Second day", "Third day", "After the break", "Late shift",
)  # fmt: skip
FILLERS = (
    "Rain all day, nothing else to add.", "The lift was out of order again.", "Quiet hours, no visitors.",
    "Power failed for a while and came back.", "A cold wind from the sea.", "The radio stayed silent.",
    "Two visitors came and left.", "No news from the office.", "Fog until noon.", "Everybody took a break.",
)  # fmt: skip

ANY_OBJECT = ("What happened to the {x}?", "What does the log say about the {x}?", "Which entry mentions the {x}?")
ANY_PERSON = ("What did {x} do?", "What does the log say about {x}?", "Which entry mentions {x}?")
ANY_PLACE = ("What happened at the {x}?", "What does the log say about the {x}?", "Which entry mentions the {x}?")
TWO_KEYS = (
    "What did {a} have to do with {b}?", "Which entry mentions {a} and {b}?", "What links {a} and {b}?",
)  # fmt: skip

REPORTS = (
    "List all steps of job {x} in order.", "Report everything about job {x}.",
    "What was done in job {x}? List it all.", "Give me every entry of job {x}.", "Write a full report on job {x}.",
)  # fmt: skip
JOB_STEPS = (
    "What was step {n} of job {x}?", "What does the log say about step {n} of job {x}?",
    "Which entry is step {n} of job {x}?",
)  # fmt: skip
COUNTS = ("How many entries mention {x}?", "Count the entries about {x}.", "How often is {x} mentioned?")
ABSENT = "The log does not mention {x}."

SYSTEM_MESSAGES = (
    "You answer from the log and cite entries word for word.",
    "You are a helpful assistant for site logs.",
    "Answer only with entries from the log.",
)
INTRODUCTIONS = ("", "", "Here is the log.\n\n", "Read this log and answer.\n\n", "The log of our site:\n\n")
SMALL_TALK = (
    ("Hello!", "Hello. Give me a log and ask about it."),
    ("Thank you!", "You are welcome."),
    ("Who are you?", "I answer questions about site logs."),
    ("What can you do?", "I can look up, list and count the entries of a log."),
)
