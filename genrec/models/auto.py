"""Registers every model with transformers' Auto classes, so that `AutoModelForCausalLM` loads our folders."""


def register() -> None:
    """Register the model classes; calling it again changes nothing."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    from genrec.models.discriminative import MODELS
    from genrec.models.gamer.configuration_gamer import GamerConfig
    from genrec.models.gamer.modeling_gamer import GamerForCausalLM, GamerModel

    AutoConfig.register(GamerConfig.model_type, GamerConfig, exist_ok=True)
    AutoModel.register(GamerConfig, GamerModel, exist_ok=True)
    AutoModelForCausalLM.register(GamerConfig, GamerForCausalLM, exist_ok=True)
    for model in MODELS:
        AutoConfig.register(model.config_class.model_type, model.config_class, exist_ok=True)
        AutoModel.register(model.config_class, model, exist_ok=True)
