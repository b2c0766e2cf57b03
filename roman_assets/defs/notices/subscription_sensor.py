"""The sensor that tells subscribers of new, reprocessed and removed products."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

from roman_assets.deadlines.alerts import mail_sender, mail_server
from roman_assets.defs.lib.resources import Installation
from roman_assets.errors import PassingFaultError
from roman_assets.settings.service_settings import service_address
from roman_assets.settings.subscription_settings import subscriptions_of


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells subscribers, by mail or to a webhook, of new, reprocessed and removed "
    "products of their programs.",
)
def subscription_sensor(
    context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]
) -> dg.SkipReason:
    """Deliver to each subscriber what was not delivered yet."""
    from roman_assets.subscriptions.subscription_notice import Post, tell_subscribers

    root = installation.root
    subscriptions = subscriptions_of(root)
    if not subscriptions:
        return dg.SkipReason("nobody has subscribed (docs/service.md)")
    post = Post(mail_server(), mail_sender(), service_address(root))
    done = tell_subscribers(root, subscriptions, post, datetime.now(UTC))
    if done.faults:
        raise PassingFaultError(
            f"{'; '.join(done.faults)}. What could not be delivered is sent again at the next tick"
        )
    told = ", ".join(f"{number} by {name}" for name, number in done.sent.items())
    return dg.SkipReason(f"delivered {told}" if told else "nothing new")
