"""language: ensembles of language models, token by token."""

from pluria.language.average import Averaged, averages
from pluria.language.choice import Choices, Question, choices
from pluria.language.consistency import consistency, model_consistency, token_consistency
from pluria.language.generate import Generated, generate, generate_batch
from pluria.language.meanings import Meanings, both_ways, meanings, same_words
from pluria.language.perplexity import Perplexity, TokenScores, perplexity, token_scores
from pluria.language.plan import Plan, memory_plan, refuse_over
from pluria.language.several import PooledTokens, pooled_tokens
from pluria.language.temperature import fit_token_temperature
from pluria.language.tokens import Windows, check_vocabulary, context_of, tokenizer_in, tokens_of, windows
from pluria.language.vocabulary import (
    VocabularyMap,
    align_tokens,
    edit_distance,
    map_vocabulary,
    token_strings,
    union_vocabulary,
)
from pluria.language.votes import Vote, last_number, majority, majority_of_members, tidy

__all__ = [
    "Averaged",
    "Choices",
    "Generated",
    "Meanings",
    "Perplexity",
    "Plan",
    "PooledTokens",
    "Question",
    "TokenScores",
    "VocabularyMap",
    "Vote",
    "Windows",
    "align_tokens",
    "averages",
    "both_ways",
    "check_vocabulary",
    "choices",
    "consistency",
    "context_of",
    "edit_distance",
    "fit_token_temperature",
    "generate",
    "generate_batch",
    "last_number",
    "majority",
    "majority_of_members",
    "map_vocabulary",
    "meanings",
    "memory_plan",
    "model_consistency",
    "perplexity",
    "pooled_tokens",
    "refuse_over",
    "same_words",
    "tidy",
    "token_consistency",
    "token_scores",
    "token_strings",
    "tokenizer_in",
    "tokens_of",
    "union_vocabulary",
    "windows",
]
