"""Train a byte-level BPE tokenizer on generated logbooks.

python -m demos.training.train_tokenizer FOLDER --format chatml --vocabulary 2560 --seed 1
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from demos.training import phrases
from demos.training.chat import FORMATS, ChatFormat
from demos.training.logbook import make_document, make_questions

# Llama 3's split, which llama.cpp knows as `llama-bpe`: both must cut any text in the same places.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NUMBERS = [str(number) for number in range(1000)]


def corpus(seed: int, documents: int) -> list[str]:
    """Line by line, so that no token spans a line's end: the end of a line is a decision of its own."""
    rng = Random(seed)
    lines: list[str] = []
    for _ in range(documents):
        document = make_document(rng, rng.choice((150, 300, 600)))
        lines += document.text.split("\n")
        lines += [question.text for question in make_questions(rng, document, 6)]
    extra = phrases.SYSTEM_MESSAGES + phrases.INTRODUCTIONS + sum(phrases.SMALL_TALK, ())
    return lines + [line.strip() for line in extra] * (documents // 20)


def train(chat: ChatFormat, vocabulary: int, seed: int, documents: int) -> Tokenizer:
    def with_split(model: models.BPE) -> Tokenizer:
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(SPLIT), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer

    draft = with_split(models.BPE())
    # Numbers are left out here and added whole below, so none of the merges is spent on them.
    letters = [line.translate({ord(digit): None for digit in "0123456789"}) for line in corpus(seed, documents)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(NUMBERS) - len(chat.specials) + 10,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    draft.train_from_iterator(letters, trainer)
    learned = json.loads(draft.to_str())["model"]
    ordered = sorted(learned["vocab"], key=learned["vocab"].get)
    ordered += [number for number in NUMBERS if number not in learned["vocab"]]
    vocab = {token: index for index, token in enumerate(ordered)}
    merges = [tuple(merge) for merge in learned["merges"]]
    # `ignore_merges` takes a whole piece that the vocabulary holds: numbers need no merges, as in llama.cpp.
    tokenizer = with_split(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in chat.specials])
    return tokenizer


def save(tokenizer: Tokenizer, chat: ChatFormat, folder: Path, context: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": chat.end,
        "pad_token": chat.padding,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        "chat_template": chat.template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--format", choices=sorted(FORMATS), default="chatml")
    parser.add_argument("--vocabulary", type=int, default=2560)
    parser.add_argument("--documents", type=int, default=8000)
    parser.add_argument("--context", type=int, default=4608)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chat = FORMATS[options.format]
    tokenizer = train(chat, options.vocabulary, options.seed, options.documents)
    save(tokenizer, chat, options.folder, options.context)
    print(f"{tokenizer.get_vocab_size()} tokens in {options.folder}")


if __name__ == "__main__":
    main()
