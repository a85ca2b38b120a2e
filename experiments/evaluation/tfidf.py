"""A classifier without a neural network: what the methods have to beat before they are worth comparing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.tasks.base import TRAITS, Example, TaskData, TaskError

STRENGTHS = (1.0, 10.0, 100.0)  # inverse regularisation; the validation set chooses
LENGTHS = (2, 5)  # characters of an n-gram


class TfIdf:
    """argmax softmax(W · tfidf(text) + b): logistic regression on weighted character n-grams within words.

    Fitted on the training examples; of three strengths of regularisation the validation loss chooses.
    """

    def __init__(self, data: TaskData) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        if not TRAITS[data.kind].labelled:
            raise TaskError(f"method=tfidf: it tells classes apart, and task={data.name} is of the kind {data.kind!r}")
        self.grams = TfidfVectorizer(analyzer="char_wb", ngram_range=LENGTHS, sublinear_tf=True)
        features = self.grams.fit_transform(text_of(example) for example in data.train)
        labels = [example.completion for example in data.train]
        if len(set(labels)) < 2:
            raise TaskError(f"method=tfidf: task={data.name} trains on one class alone, {labels[0]!r}; give it others")
        self.model: Any = None
        least = np.inf
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=2000).fit(features, labels)
            self.model, before = model, self.model
            if (loss := self.loss(data.val)) < least:
                least = loss
            else:
                self.model = before

    def probabilities(self, examples: Sequence[Example]) -> np.ndarray:
        """By example and class, in the order of self.model.classes_."""
        return self.model.predict_proba(self.grams.transform(text_of(example) for example in examples))

    def answers(self, examples: Sequence[Example]) -> list[str]:
        """The likeliest class of each."""
        return [str(self.model.classes_[i]) for i in self.probabilities(examples).argmax(1)]

    def loss(self, examples: Sequence[Example]) -> float:
        """−log p of the right class, nats an example; of a class that training never showed 1e-12 stands for p."""
        places = {label: i for i, label in enumerate(self.model.classes_)}
        each = self.probabilities(examples)
        right = [row[places[e.completion]] if e.completion in places else 0.0 for row, e in zip(each, examples)]
        return float(-np.log(np.maximum(right, 1e-12)).mean())


PREDICTORS = {"tfidf": TfIdf}  # what may answer in the model's place, by method.predictor


def predictor(name: str, data: TaskData) -> TfIdf:
    """The fitted predictor of that name. Raises ValueError where there is none."""
    if name not in PREDICTORS:
        raise ValueError(f"method.predictor={name}: there is no such predictor; there are: {', '.join(PREDICTORS)}")
    return PREDICTORS[name](data)


def text_of(example: Example) -> str:
    """What is asked, without who says it: both texts, or the turns of a chat."""
    turns = [turn["content"] for turn in example.messages if turn["role"] != "system"]
    return "\n".join(filter(None, [*turns, example.text, example.text_pair]))
