"""domain: a medical term -> the chapter and the code of ICD-10-CM that it has, from simple-icd-10-cm.

Knowledge that cannot be guessed is put in and asked for again. `n_entities` terms are trained, all of them, in
questions of the trained templates; val and test ask for the same terms in templates that training does not have (part
"recall"). Beside the test, a share `unseen` of its number asks for other terms (part "unseen"): their codes cannot be
known, their chapters partly, by meaning, so they are reported apart and are no part of the score. Terms are titles of
three-character categories, one code each, and so are the answers.
"""

from __future__ import annotations

import random
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from experiments.config.tasks import DomainConfig
from experiments.tasks.base import Example, Scores, TaskData, TaskError
from experiments.tasks.generated import Parts, generated, take, user
from experiments.tasks.metrics import mean, of_each

PACKAGE = "simple-icd-10-cm"
LONGEST = 40  # characters of a term
VAGUE = re.compile(r"\b(other|unspecified|elsewhere|not|without|certain)\b|[,(\[;]", re.IGNORECASE)
TEMPLATES = (
    "What is the ICD-10 code of {term}?", "Give chapter and code: {term}.", "How is {term} coded in ICD-10?",
    "ICD-10 entry for {term}, please.", "Look up {term}.", "Under which chapter and code is {term} filed?",
    "A patient's record says: {term}. Which code is that?", "Code this diagnosis: {term}.",
    "Where in ICD-10 do I find {term}?", "{term}: chapter and code?", "Which ICD-10 category stands for {term}?",
    "I have to bill for {term}. What do I enter?", "Tell me the classification of {term}.",
    "The letter names {term}. Classify it.", "For {term}, state the chapter number and the code.",
    "Classify {term} by ICD-10.", "Find the code that means {term}.", "What code does a coder write for {term}?",
    "Please assign a code to {term}.", "{term} belongs to which chapter, and has which code?",
    "Name the ICD-10 chapter and category of {term}.", "Diagnosis on the form: {term}. Chapter and code?",
    "Translate {term} into its ICD-10 code.", "Fill in chapter and code for {term}.",
)  # fmt: skip
IN_TEST, IN_VAL = 5, 3  # templates
RECALL, UNSEEN = "recall", "unseen"
CODE = re.compile(r"\b[A-Z][0-9][0-9A-Z]\b")
CHAPTER = re.compile(r"\bchapter\s+([0-9]+)\b", re.IGNORECASE)


def load(config: DomainConfig, seed: int) -> TaskData:
    values = (config.n_train, config.n_val, config.n_test, config.n_entities, config.unseen, seed)
    data = generated("domain", [__file__], [PACKAGE], values, lambda: generate(*values), "accuracy", score)
    test, apart = ([e for e in data.test if (e.part == UNSEEN) == other] for other in (False, True))
    return replace(data, test=test, apart=apart)


def generate(n_train: int, n_val: int, n_test: int, n_entities: int, unseen: float, seed: int) -> Parts:
    """Train, val, and test with the unseen after it. Raises TaskError for sizes that cannot be filled."""
    if not 0 <= unseen <= 1:
        raise TaskError(f"task.unseen={unseen}: a share of task.n_test, from 0 to 1")
    n_unseen = round(unseen * n_test)
    known = terms()
    if not 1 <= n_entities <= len(known) // 2:
        raise TaskError(f"task.n_entities={n_entities}: choose 1 to {len(known) // 2}; there are {len(known)} terms")
    if n_train < n_entities:
        raise TaskError(f"task.n_train={n_train}: fewer than task.n_entities={n_entities}, so not all could be learned")
    rng = random.Random(f"domain {seed}")
    drawn = rng.sample(known, 2 * n_entities)
    learned, others = drawn[:n_entities], drawn[n_entities:]
    templates = rng.sample(TEMPLATES, len(TEMPLATES))
    for_test, for_val = templates[:IN_TEST], templates[IN_TEST : IN_TEST + IN_VAL]
    for_train = templates[IN_TEST + IN_VAL :]

    def part(name: str, count: int, entities: Sequence[tuple[str, str, int]], asked: Sequence[str], kind: str):
        streams = [questions(entity, rng.sample(asked, len(asked)), kind) for entity in entities]
        return take(name, streams, count, set(), rng, lambda _: ())

    test, val = part("test", n_test, learned, for_test, RECALL), part("val", n_val, learned, for_val, RECALL)
    apart = part("test", n_unseen, others, for_test, UNSEEN)
    return part("train", n_train, learned, for_train, RECALL), val, test + apart


def questions(entity: tuple[str, str, int], templates: Sequence[str], part: str) -> Iterator[Example]:
    term, code, chapter = entity
    for template in templates:
        yield Example(user(template.format(term=term)), f"Chapter {chapter}, code {code}", group=template, part=part)


def terms() -> list[tuple[str, str, int]]:
    """(term, code, number of its chapter) of the categories whose short, unvague title no other category has."""
    with warnings.catch_warnings():  # reads its files by a way that importlib deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        import simple_icd_10_cm as icd
    titles = {code: icd.get_description(code) for code in icd.get_all_codes() if icd.is_category(code)}
    count = Counter(titles.values())
    return [
        (title, code, int(icd.get_ancestors(code)[-1]))
        for code, title in titles.items()
        if count[title] == 1 and len(title) <= LONGEST and not VAGUE.search(title)
    ]


def score(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """accuracy: code and chapter are right; code_match, chapter_match: one of them. The first of each counts."""
    pairs = list(zip(examples, predictions, strict=True))
    codes, chapters = (
        [_first(pattern, said) == _first(pattern, example.completion) for example, said in pairs]
        for pattern in (CODE, CHAPTER)
    )
    both = [code and chapter for code, chapter in zip(codes, chapters)]
    return of_each("accuracy", both, code_match=mean(codes), chapter_match=mean(chapters))


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return found.group(found.lastindex or 0) if found else None
