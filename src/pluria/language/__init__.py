"""language: ensembles of language models, token by token."""

from pluria.language.average import Averaged, averages
from pluria.language.perplexity import Perplexity, TokenScores, perplexity, token_scores
from pluria.language.tokens import Windows, check_vocabulary, context_of, tokenizer_in, tokens_of, windows

__all__ = [
    "Averaged",
    "Perplexity",
    "TokenScores",
    "Windows",
    "averages",
    "check_vocabulary",
    "context_of",
    "perplexity",
    "token_scores",
    "tokenizer_in",
    "tokens_of",
    "windows",
]
