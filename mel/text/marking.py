"""The one render: a mention in context and an entity both become a text with a marked focus."""

from __future__ import annotations

from mel.types import Entity, MarkedText, Mention, Span


def mark_mention(mention: Mention, with_title: bool) -> MarkedText:
    """A mention is its page with the surface form as focus, the page title as header if asked."""
    return MarkedText(mention.context, mention.span, mention.title if with_title else "")


def mark_entity(entity: Entity) -> MarkedText:
    """An entity is its title and description with the title as focus."""
    return MarkedText(f"{entity.title}\n{entity.description}", Span(0, len(entity.title)), role="entity")
