"""A browser's side of Streamlit's protocol: one session over one WebSocket, whose headers the test chooses."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

import pyarrow as pa
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.sync.client import connect

from tests.recipes.servers import served


def streamlit_server(script: Path) -> AbstractContextManager[str]:
    """`streamlit run`; the host and port it listens on."""

    def arguments(port: int) -> list[str]:
        options = {
            "server.headless": "true",
            "server.address": "127.0.0.1",
            "server.port": port,
            "server.fileWatcherType": "none",
            "browser.gatherUsageStats": "false",
        }
        return ["streamlit.web.cli", "run", str(script), *(f"--{name}={value}" for name, value in options.items())]

    return served(arguments, "/_stcore/health")


class Session:
    """
    One session. `run()` is a run of the script to its end; `elements` is what it has shown.

    With `like` it goes on with that one's session, as a page does that has lost its connection.
    """

    def __init__(self, address: str, headers: Mapping[str, str], query: str = "", like: Session | None = None) -> None:
        self.query = query
        self.session_id = "" if like is None else like.session_id
        self.elements: list[object] = [] if like is None else like.elements
        self._widgets: dict[str, WidgetState] = {} if like is None else like._widgets
        protocols = ["streamlit", "no-xsrf-token", self.session_id] if like else ["streamlit"]
        self._connecting = connect(
            f"ws://{address}/_stcore/stream", additional_headers=headers, subprotocols=protocols, max_size=None
        )

    def __enter__(self) -> Self:
        self._socket = self._connecting.__enter__()
        return self

    def __exit__(self, *exc_info) -> None:
        self._connecting.__exit__(*exc_info)

    def start(self) -> None:
        """Ask for a run of the script."""
        message = BackMsg()
        message.rerun_script.query_string = self.query
        message.rerun_script.widget_states.widgets.extend(self._widgets.values())
        self._socket.send(message.SerializeToString())

    def run(self) -> Self:
        self.start()
        return self.finish()

    def finish(self) -> Self:
        """Wait for the end of the run."""
        self.wait_for(lambda message: message.WhichOneof("type") == "script_finished")
        failures = [each.exception.message for each in self.elements if each.WhichOneof("type") == "exception"]
        assert failures == []
        return self

    def wait_for(self, is_wanted) -> None:
        while True:
            message = ForwardMsg()
            message.ParseFromString(self._socket.recv(timeout=30))
            kind = message.WhichOneof("type")
            if kind == "new_session":
                self.elements = []
                self.session_id = message.new_session.initialize.session_id
            elif kind == "delta" and message.delta.WhichOneof("type") == "new_element":
                self.elements.append(message.delta.new_element)
            if is_wanted(message):
                return

    def wait_for_text(self, text: str) -> None:
        self.wait_for(lambda message: text in self.all("text"))

    def all(self, kind: str) -> list[str]:
        """The text of each element of a kind that the latest run has shown."""
        found = [getattr(element, kind) for element in self.elements if element.WhichOneof("type") == kind]
        return [each.body for each in found]

    def rows(self) -> list[list[object]]:
        """Owner and text of the rows of the table."""
        (table,) = [each.dataframe for each in self.elements if each.WhichOneof("type") == "dataframe"]
        frame = pa.ipc.open_stream(table.arrow_data.data).read_pandas()
        return frame[["owner", "text"]].values.tolist()

    def enter(self, label: str, text: str) -> None:
        """Type into a field, which the next run sees."""
        widget = self._widget("text_input", label)
        widget.string_value = text

    def click(self, label: str) -> Self:
        """Click a button, and run the script once with that."""
        widget = self._widget("button", label)
        widget.trigger_value = True
        self.run()
        del self._widgets[widget.id]
        return self

    def _widget(self, kind: str, label: str) -> WidgetState:
        (found,) = {
            getattr(each, kind).id
            for each in self.elements
            if each.WhichOneof("type") == kind and getattr(each, kind).label == label
        }
        return self._widgets.setdefault(found, WidgetState(id=found))
