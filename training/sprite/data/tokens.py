"""The two tokenizers, trained on captions: sentencepiece for T5, byte-level BPE for CLIP."""

import io
import tempfile
from functools import cache
from pathlib import Path
from random import Random

import sentencepiece
import torch
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTokenizer, T5Tokenizer

from training.sprite.data.captions import caption
from training.sprite.data.scenes import random_scene
from training.sprite.data.strange_words import strange_words
from training.sprite.paths import work_folder

TEXT_LENGTH = 32
VOCABULARY = 3000
CORPUS_LINES = 120_000
# The last row ends in each byte that a character of several bytes can end in, which CLIP's BPE must know.
CHARACTERS = (
    "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"()-&/+#*%$@_"
    "àáâãäåæçèéêëìíîïñòóôõöøùúûüýÿßœ"
    + "".join(map(chr, range(0x4E00, 0x4E40)))
)  # fmt: skip


def train_tokenizers(lines: int = CORPUS_LINES) -> None:
    corpus = _corpus(lines)
    if not (_folder("t5") / "tokenizer.json").exists():
        _trained_t5(corpus).save_pretrained(_folder("t5"))
    if not (_folder("clip") / "tokenizer.json").exists():
        _trained_clip(corpus).save_pretrained(_folder("clip"))


def t5_tokenizer() -> T5Tokenizer:
    return _t5_tokenizer(_folder("t5"))


def clip_tokenizer() -> CLIPTokenizer:
    return _clip_tokenizer(_folder("clip"))


def t5_ids(texts: list[str]) -> Tensor:
    return _ids(t5_tokenizer(), texts)


def clip_ids(texts: list[str]) -> Tensor:
    return _ids(clip_tokenizer(), texts)


def _ids(tokenizer: T5Tokenizer | CLIPTokenizer, texts: list[str]) -> Tensor:
    encoded = tokenizer(texts, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt")
    ids: Tensor = encoded.input_ids.to(torch.int64)
    return ids


@cache
def _t5_tokenizer(folder: Path) -> T5Tokenizer:
    return T5Tokenizer.from_pretrained(folder)


@cache
def _clip_tokenizer(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder)


def _folder(name: str) -> Path:
    return work_folder() / "tokenizers" / name


def _corpus(lines: int) -> list[str]:
    random = Random("tokenizer corpus")
    captions = [caption(random_scene(random), random).text for _ in range(lines)]
    return captions + list(strange_words("training")) * 2 + list(CHARACTERS) * 20


def _trained_t5(corpus: list[str]) -> T5Tokenizer:
    """Unigram pieces; the normalisation folds upper case, and travels inside tokenizer.json."""
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=trained, vocab_size=VOCABULARY, model_type="unigram",
        normalization_rule_name="nmt_nfkc_cf", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>",
        eos_piece="</s>", unk_piece="<unk>", hard_vocab_limit=False, character_coverage=1.0,
        num_threads=2, minloglevel=2,
    )  # fmt: skip
    model = sentencepiece_model_pb2.ModelProto.FromString(trained.getvalue())
    return T5Tokenizer(
        vocab=[(piece.piece, piece.score) for piece in model.pieces],
        _spm_precompiled_charsmap=model.normalizer_spec.precompiled_charsmap,
        extra_ids=0,
        model_max_length=TEXT_LENGTH,
    )


def _trained_clip(corpus: list[str]) -> CLIPTokenizer:
    """BPE trained under CLIP's own splitting, then handed to CLIP's class as vocabulary and merges."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = CLIPTokenizer().backend_tokenizer.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|startoftext|>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, end_of_word_suffix="</w>"
    )
    tokenizer.train_from_iterator(corpus, trainer)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.model.save(folder)
        return CLIPTokenizer(
            vocab=str(Path(folder) / "vocab.json"),
            merges=str(Path(folder) / "merges.txt"),
            model_max_length=TEXT_LENGTH,
        )


if __name__ == "__main__":
    train_tokenizers()
