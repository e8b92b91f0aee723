"""Training: samples, collators, arguments and `GenRecTrainer`."""

from genrec.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "genrec.training.arguments": ["GenRecTrainingArguments"],
        "genrec.training.collators": ["HistoryCollator"],
        "genrec.training.encoder_decoder_trainer": ["EncoderDecoderTrainer"],
        "genrec.training.item_arguments": ["ItemTrainingArguments"],
        "genrec.training.item_trainer": ["ItemTrainer"],
        "genrec.training.trainer": ["GenRecTrainer"],
    },
)
