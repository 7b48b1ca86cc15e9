"""Conversations: turns whose KV cache stays on the device."""

from device_sdk.conversation.conversation import Conversation
from device_sdk.conversation.options import TurnOptions
from device_sdk.conversation.overflow import Overflow
from device_sdk.conversation.saved import Saved
from device_sdk.conversation.sync import SyncConversation
from device_sdk.conversation.turns import Turn

__all__ = ["Conversation", "Overflow", "Saved", "SyncConversation", "Turn", "TurnOptions"]
