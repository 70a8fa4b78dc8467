"""language: ensembles of language models, token by token."""

from pluria.language.average import Averaged, averages
from pluria.language.choice import Choices, Question, choices
from pluria.language.perplexity import Perplexity, TokenScores, perplexity, token_scores
from pluria.language.plan import Plan, memory_plan, refuse_over
from pluria.language.temperature import fit_token_temperature
from pluria.language.tokens import Windows, check_vocabulary, context_of, tokenizer_in, tokens_of, windows

__all__ = [
    "Averaged",
    "Choices",
    "Perplexity",
    "Plan",
    "Question",
    "TokenScores",
    "Windows",
    "averages",
    "check_vocabulary",
    "choices",
    "context_of",
    "fit_token_temperature",
    "memory_plan",
    "perplexity",
    "refuse_over",
    "token_scores",
    "tokenizer_in",
    "tokens_of",
    "windows",
]
