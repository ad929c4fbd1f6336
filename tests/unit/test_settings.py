"""Flag over environment over default, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from safelight.errors import ConfigurationError
from safelight.settings import DeploymentSettings, deployment_settings, load_settings, part_of


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SAFELIGHT_"):
            monkeypatch.delenv(name)


def test_without_flags_and_environment_it_is_sprite_on_loopback() -> None:
    settings = load_settings()

    assert (settings.model, settings.host, settings.port) == ("sprite", "127.0.0.1", 8000)
    assert settings.read_api_key() is None


def test_a_flag_wins_over_the_environment_which_wins_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_PORT", "9000")
    monkeypatch.setenv("SAFELIGHT_REPLICAS", "3")

    settings = load_settings(port=9001, replicas=None)

    assert (settings.port, settings.replicas, settings.max_batch_size) == (9001, 3, 8)


def test_a_misspelt_variable_is_refused_with_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_APIKEY", "secret")

    with pytest.raises(ConfigurationError, match="did you mean SAFELIGHT_API_KEY"):
        load_settings()


@pytest.mark.parametrize(("name", "value"), [("port", 70000), ("replicas", 0), ("device", "tpu"), ("dtype", "int8")])
def test_a_value_that_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name}: .*SAFELIGHT_{name.upper()}"):
        load_settings(**{name: value})


@pytest.mark.parametrize("name", ["data_dir", "vae", "text_encoder_2", "api_key_file", "tls_certificate"])
def test_a_path_in_the_home_of_nobody_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name}: .*~nobody-of-that-name/x lies in the home of nobody"):
        load_settings(**{name: "~nobody-of-that-name/x"})


@pytest.mark.parametrize("name", ["https://images.example.org", "example.org:443", "example.org/x", "*", "a b", "[::1"])
def test_an_allowed_host_is_a_name_and_nothing_else(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"allowed_hosts: .*no name or address without scheme, port and path"):
        load_settings(allowed_hosts=f"good.example.org,{name}")


@pytest.mark.parametrize(
    "origin",
    [
        *("https://app.example.org", "http://localhost:5173", "http://[::1]:8080", "chrome-extension://abcdef"),
        *("https://app.example.org:8443", "*"),
    ],
)
def test_an_origin_is_given_as_browsers_send_it(origin: str) -> None:
    assert load_settings(cors_origins=origin).cors_origins == (origin,)


@pytest.mark.parametrize(
    "origin",
    [
        *("app.example.org", "https://app.example.org/", "https://App.example.org", "https://app.example.org:443"),
        *("http://app.example.org:80", "https://*.example.org", "null", "https://", "https://a b", "https://u@a"),
        *("https://a:0", "https://ä.example"),
    ],
)
def test_what_no_browser_sends_is_refused_as_an_origin(origin: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cors_origins: .*is no origin as browsers send it.*CORS_ORIGINS"):
        load_settings(cors_origins=f"https://good.example.org,{origin}")


def test_every_origin_beside_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="give it alone"):
        load_settings(cors_origins="*,https://good.example.org")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_any_address_but_loopback_needs_a_key(host: str) -> None:
    with pytest.raises(ConfigurationError, match="without a key"):
        load_settings(host=host)
    assert load_settings(host=host, api_key="k").host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    assert load_settings(host=host).binds_loopback


def test_the_key_comes_from_a_file_without_the_line_end(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("s3cret\n")

    assert load_settings(api_key_file=file).read_api_key() == "s3cret"


@pytest.mark.parametrize("key", ["", "  ", "with\nline", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match="printable ASCII"):
        load_settings(api_key=key)


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no-such-file"):
        load_settings(api_key_file=tmp_path / "no-such-file")


def test_the_key_is_not_in_the_settings_as_text() -> None:
    settings = load_settings(api_key="s3cret")

    assert "s3cret" not in repr(settings)
    assert "s3cret" not in settings.model_dump_json()


def test_a_deployment_has_its_own_loras_and_not_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_LORAS", "server=a.safetensors")

    assert deployment_settings({"SAFELIGHT_LORAS": "a=b, c=d:0.5,"}, model="m").loras == ("a=b", " c=d:0.5")
    assert deployment_settings({"OMP_PROC_BIND": "true"}, model="m").loras == ()


MALFORMED_ALIASES = [
    *("dall-e-3", "=tiny", "dall-e-3=", "dall-*=tiny", "a b=tiny", "good=tiny,hf_very-secret", f"{'a' * 129}=tiny"),
]


@pytest.mark.parametrize("aliases", MALFORMED_ALIASES)
def test_what_is_no_alias_is_refused(aliases: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^model_aliases: .*ALIAS=MODEL.*SAFELIGHT_MODEL_ALIASES"):
        load_settings(model_aliases=aliases)


@pytest.mark.parametrize("aliases", MALFORMED_ALIASES)
def test_what_is_no_alias_is_refused_of_a_deployment_by_its_variable_and_without_its_value(aliases: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        deployment_settings({"SAFELIGHT_MODEL_ALIASES": aliases}, model="m")

    assert caught.value.message.startswith("environment variable SAFELIGHT_MODEL_ALIASES of the deployment: ")
    assert aliases.rpartition(",")[2] not in caught.value.message


def test_a_deployment_has_its_own_aliases_and_not_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_MODEL_ALIASES", "server=m")

    assert deployment_settings({"SAFELIGHT_MODEL_ALIASES": "a=m, *=m,"}, model="m").model_aliases == ("a=m", "*=m")
    assert deployment_settings({}, model="m").model_aliases == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("replicas", 0),
        ("request_timeout_s", 0),
        ("max_concurrent_requests_per_instance", 0),
        ("max_queued_requests", -1),
        ("max_queue_wait_s", 0.0),
        ("port", 8001),
    ],
)
def test_what_a_deployment_cannot_decide_so_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} of the deployment: "):
        deployment_settings({}, **{"model": "m"} | {name: value})


def test_a_variable_of_a_deployment_that_makes_no_sense_is_refused_by_its_name_without_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("safelight.settings.SETTING_VARIABLES", {"SAFELIGHT_REPLICAS": "replicas"})

    with pytest.raises(ConfigurationError) as caught:
        deployment_settings({"SAFELIGHT_REPLICAS": "hf_very-secret"}, model="m")

    assert caught.value.message.startswith("environment variable SAFELIGHT_REPLICAS of the deployment: ")
    assert "very-secret" not in caught.value.message


def test_a_change_of_settings_is_checked_as_the_settings_were() -> None:
    with pytest.raises(ValueError, match="max_concurrent_requests_per_instance"):
        part_of(load_settings(), DeploymentSettings, max_concurrent_requests_per_instance=0)
