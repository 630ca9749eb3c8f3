"""The examples run and do what they say."""

from __future__ import annotations

from examples import custom_op, train_mlp


def test_custom_op(capsys):
    assert custom_op.main()
    assert "d_weight = sum(" in capsys.readouterr().out


def test_train_mlp(capsys):
    assert train_mlp.main() > 0.95
    assert "told apart" in capsys.readouterr().out
