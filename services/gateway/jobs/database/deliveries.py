"""Deliveries of webhooks in the database.

An attempt moves the time at which the delivery is due, so no other gateway tries meanwhile, and one
that dies in it leaves the delivery to the next.
"""

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from services.gateway.jobs.database.clock import database_now
from services.gateway.jobs.database.tables import Delivery, DeliveryRow


class Deliveries:
    """The deliveries of a database."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Works with a database whose tables are there."""
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def claim(self, attempt_s: float) -> DeliveryRow | None:
        """Begins an attempt at a delivery that is due; None if none is.

        Args:
            attempt_s: Seconds after which an attempt without an end counts as failed.
        """
        due = (
            select(DeliveryRow.id)
            .where(DeliveryRow.state == "pending", DeliveryRow.due_s <= database_now())
            .order_by(DeliveryRow.due_s)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        begun = (
            update(DeliveryRow)
            .where(DeliveryRow.id == due.scalar_subquery())
            .values(
                attempts=DeliveryRow.attempts + 1,
                attempted_s=database_now(),
                due_s=database_now() + attempt_s,
            )
            .returning(DeliveryRow)
            .execution_options(synchronize_session=False)
        )
        async with self._sessions.begin() as session:
            return await session.scalar(begun)

    async def end(self, delivery: DeliveryRow, state: Delivery) -> None:
        """Records that an event was delivered, or is given up."""
        await self._change(delivery, state=state)

    async def put_off(self, delivery: DeliveryRow, pause_s: float) -> None:
        """Has an event tried again after a pause."""
        await self._change(delivery, due_s=database_now() + pause_s)

    async def _change(self, delivery: DeliveryRow, **values: object) -> None:
        """Changes a delivery that has not been delivered meanwhile."""
        change = update(DeliveryRow).where(
            DeliveryRow.id == delivery.id, DeliveryRow.state == "pending"
        )
        async with self._sessions.begin() as session:
            await session.execute(
                change.values(**values).execution_options(synchronize_session=False)
            )
