"""Registers every model with transformers' Auto classes, so that `AutoModelForCausalLM` loads our folders."""


def register() -> None:
    """Register the model classes; calling it again changes nothing."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from genrec.models import encoder_decoder, ranking
    from genrec.models.discriminative import MODELS
    from genrec.models.gamer.backbone import GamerModel
    from genrec.models.gamer.configuration_gamer import GamerConfig
    from genrec.models.gamer.configuration_ranking import GamerRankingConfig
    from genrec.models.gamer.modeling_gamer import GamerForCausalLM
    from genrec.models.gamer.modeling_ranking import GamerForRanking

    AutoConfig.register(GamerConfig.model_type, GamerConfig, exist_ok=True)
    AutoModel.register(GamerConfig, GamerModel, exist_ok=True)
    AutoModelForCausalLM.register(GamerConfig, GamerForCausalLM, exist_ok=True)
    AutoConfig.register(GamerRankingConfig.model_type, GamerRankingConfig, exist_ok=True)
    AutoModel.register(GamerRankingConfig, GamerForRanking, exist_ok=True)
    for model in MODELS:
        AutoConfig.register(model.config_class.model_type, model.config_class, exist_ok=True)
        AutoModel.register(model.config_class, model, exist_ok=True)
    for ranker in ranking.MODELS:
        AutoConfig.register(ranker.config_class.model_type, ranker.config_class, exist_ok=True)
        AutoModel.register(ranker.config_class, ranker, exist_ok=True)
    for seq2seq in encoder_decoder.MODELS:
        AutoConfig.register(seq2seq.config_class.model_type, seq2seq.config_class, exist_ok=True)
        AutoModelForSeq2SeqLM.register(seq2seq.config_class, seq2seq, exist_ok=True)
