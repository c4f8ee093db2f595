use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use evenkeel::choreograph::{Definition, RetryPolicy, StepContext, StepKey};
use evenkeel::core::{BoxError, Draft, Result, Tx};
use serde::{Deserialize, Serialize};

use crate::payments::{Charge, Payments};
use crate::trouble::{Act, Refused, Trouble};
use crate::warehouse::{Parcel, Warehouse};

pub(crate) const NAME: &str = "checkout";

const RESERVE: StepKey<()> = StepKey::new("reserve");
const CHARGE: StepKey<Charge> = StepKey::new("charge");
const SHIP: StepKey<Parcel> = StepKey::new("ship");
const CONFIRM: StepKey<()> = StepKey::new("confirm");

/// What a customer asks for. Its id is that of the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) customer: String,
    pub(crate) item: String,
    pub(crate) quantity: u32,
    pub(crate) cents: i64,
}

/// The steps of a checkout, each a different way to do something once:
///
/// - `reserve` writes to a partition that is not the run's, under the order's id: done again, it
///   finds what it did;
/// - `charge` asks another service, with the step's idempotency key: asked again, it gives the same
///   answer;
/// - `ship` writes in the transaction that records the step: it never happens again;
/// - `confirm` tells somebody, and may do so twice.
pub(crate) fn definition(shop: Shop) -> Result<Definition<Order, Draft>> {
    let shop = Arc::new(shop);
    let patient = RetryPolicy::attempts(20).first(Duration::from_millis(200)).longest(Duration::from_secs(5));
    let undo = RetryPolicy::attempts(7).first(Duration::from_millis(100)).longest(Duration::from_secs(2));
    Definition::builder(NAME)
        .step(RESERVE, shop.does(Shop::reserve))
        .retry(patient)
        .non_retryable(is_refusal)
        .compensate_with(undo, shop.does(Shop::release))
        .step(CHARGE, shop.does(Shop::charge))
        .timeout(Duration::from_secs(10))
        .retry(patient)
        .non_retryable(is_refusal)
        .compensate_with(undo, shop.does(Shop::refund))
        .tx_step(SHIP, {
            let shop = Arc::clone(&shop);
            move |ctx, tx| Arc::clone(&shop).ship(ctx, tx)
        })
        .retry(patient)
        .non_retryable(is_refusal)
        .compensate_with(undo, shop.does(Shop::recall))
        .step(CONFIRM, shop.does(Shop::confirm))
        .retry(patient)
        .non_retryable(is_refusal)
        .build()
}

fn is_refusal(error: &(dyn StdError + 'static)) -> bool {
    error.is::<Refused>()
}

type Context = StepContext<Order>;
type Done<T> = Result<T, BoxError>;

/// Who does it.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) warehouse: Warehouse,
    pub(crate) payments: Payments,
    pub(crate) trouble: Trouble,
}

impl Shop {
    /// A callback that is handed the shop.
    fn does<F, W>(self: &Arc<Self>, act: F) -> impl Fn(Context) -> W + use<F, W>
    where
        F: Fn(Arc<Self>, Context) -> W,
    {
        let shop = Arc::clone(self);
        move |ctx| act(Arc::clone(&shop), ctx)
    }

    async fn reserve(self: Arc<Self>, ctx: Context) -> Done<()> {
        let parcel = Parcel::of(ctx.run_id(), ctx.input());
        self.trouble.act(Act::Reserve, self.warehouse.reserve(&parcel)).await
    }

    async fn release(self: Arc<Self>, ctx: Context) -> Done<()> {
        let parcel = Parcel::of(ctx.run_id(), ctx.input());
        self.trouble.act(Act::Release, self.warehouse.release(&parcel)).await
    }

    async fn charge(self: Arc<Self>, ctx: Context) -> Done<Charge> {
        let key = ctx.idempotency_key();
        self.trouble.act(Act::Charge, self.payments.charge(&key, ctx.input())).await
    }

    async fn refund(self: Arc<Self>, ctx: Context) -> Done<()> {
        let key = ctx.idempotency_key();
        self.trouble.act(Act::Refund, self.payments.refund(&key, ctx.input())).await
    }

    async fn ship(self: Arc<Self>, ctx: Context, mut tx: Tx<Draft>) -> Done<Parcel> {
        let parcel = Parcel::of(ctx.run_id(), ctx.input());
        let writing = async {
            Warehouse::ship(tx.conn().await?, &parcel)?;
            Ok(parcel)
        };
        self.trouble.act(Act::Ship, writing).await
    }

    async fn recall(self: Arc<Self>, ctx: Context) -> Done<()> {
        self.trouble.act(Act::Recall, self.warehouse.recall(ctx.run_id())).await
    }

    async fn confirm(self: Arc<Self>, ctx: Context) -> Done<()> {
        let telling = async {
            let Order { customer, item, quantity, .. } = ctx.input();
            let charge = ctx.get(CHARGE).ok_or("nothing is confirmed before it is charged")?;
            let order = ctx.run_id();
            println!("{order} is confirmed: {quantity} x {item} for {customer}, paid with {}", charge.id);
            Ok(())
        };
        self.trouble.act(Act::Confirm, telling).await
    }
}
