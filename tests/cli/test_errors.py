import pytest
from huggingface_hub.errors import StrictDataclassFieldValidationError

from genrec.cli.errors import friendly_errors, is_user_error, message_of


@pytest.mark.parametrize(
    "error",
    [ValueError("bad value"), FileNotFoundError("no file"), StrictDataclassFieldValidationError("a", ValueError("b"))],
)
def test_what_the_user_can_mend_is_one_message_and_exit_code_2(error, capsys):
    with pytest.raises(SystemExit) as caught, friendly_errors(debug=False):
        raise error
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("genrec: ")


def test_our_own_mistakes_keep_their_traceback():
    with pytest.raises(TypeError, match="ours"), friendly_errors(debug=False):
        raise TypeError("ours")


def test_debug_lets_errors_through():
    with pytest.raises(ValueError, match="bad"), friendly_errors(debug=True):
        raise ValueError("bad")


@pytest.mark.parametrize(("again", "advice"), [("genrec run x", "go on with:\n  genrec run x"), ("", "Stopped.\n")])
def test_ctrl_c_says_how_to_go_on(again, advice, capsys):
    with pytest.raises(SystemExit) as caught, friendly_errors(debug=True, again=again):
        raise KeyboardInterrupt
    assert caught.value.code == 130
    assert advice in capsys.readouterr().err


def test_system_errors_name_the_file(tmp_path):
    with pytest.raises(OSError, match=".") as caught:
        (tmp_path / "missing.csv").read_text()
    assert message_of(caught.value) == f"No such file or directory: {tmp_path / 'missing.csv'}"
    assert message_of(ValueError()) == "ValueError"


def test_a_plain_runtime_error_is_no_user_error():
    assert not is_user_error(RuntimeError("x"))
