"""TLS and origins: who gets as far as a key."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidMessage, InvalidStatus

from cloud_service.cli import ExitCode, main
from cloud_service.server import check_tls
from cloud_service.settings import Settings
from http_api.settings import SettingsError
from wire_protocol.messages import Generate

PAGE = "https://chat.example.org"
BODY = json.dumps({"model": "toy", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}).encode()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    chain, key = folder / "chain.pem", folder / "key.pem"
    what = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    files = ["-keyout", str(key), "-out", str(chain)]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run(["openssl", "req", *kind, *files, *what], check=True, capture_output=True)
    return chain, key


async def test_devices_come_over_tls_and_not_without(serve, device, certificate):
    chain, key = certificate
    running = serve(tls_certificate=chain, tls_key=key)
    secure = ssl.create_default_context(cafile=chain)
    async with device(running, secure=secure) as one:
        await one.send(Generate("a", 3, prompt=(1, 2)))
        assert (await one.until_terminal("a"))[-1].reason == "grant"
    with pytest.raises(InvalidMessage):
        await connect(running.ws_url, subprotocols=["pd.v1"], open_timeout=5)


def test_a_certificate_that_cannot_be_used_is_named_before_anything_starts(tmp_path, capsys, certificate):
    chain, key = certificate
    check_tls(Settings(model="m", tls_certificate=chain, tls_key=key))
    nothing = tmp_path / "none.pem"
    with pytest.raises(SettingsError, match=r"none\.pem cannot be used"):
        check_tls(Settings(model="m", tls_certificate=nothing))
    assert main(["serve", "--model", "m", "--tls-certificate", str(key)]) == ExitCode.BAD_SETTINGS
    assert "tls_certificate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("origins", "let_in"), [((), False), (("https://other.example",), False), ((PAGE,), True), (("*",), True)]
)
async def test_a_web_page_is_let_in_by_its_origin(serve, http, origins, let_in):
    running = serve(origins=origins, model_name="toy")
    page = connect(running.ws_url, subprotocols=["pd.v1"], origin=PAGE)
    if let_in:
        await (await page).close()
    else:
        with pytest.raises(InvalidStatus) as refused:
            await page
        assert refused.value.response.status_code == 403
        assert b"origins" in refused.value.response.body
    status, _ = http(running, "/v1/chat/completions", BODY, origin=PAGE)
    assert status == (200 if let_in else 403)
    assert http(running, "/v1/chat/completions", BODY)[0] == 200, "programs send no origin"


def test_a_browser_is_told_before_it_asks(serve):
    import http.client

    running = serve(origins=(PAGE,))
    connection = http.client.HTTPConnection(running.host, running.port, timeout=10)
    asked = {"origin": PAGE, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    connection.request("OPTIONS", "/v1/chat/completions", headers=asked)
    response = connection.getresponse()
    assert response.status == 200
    assert response.headers["access-control-allow-origin"] == PAGE
    connection.close()
