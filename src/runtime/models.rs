//! Which models there are, what they cost, and who judges.

use std::sync::Arc;

use super::config::Config;
use super::{Runtime, RuntimeError};
use crate::agent::Agent;
use crate::event::Budget;
use crate::limits::LOCAL_PROBE_TIMEOUT;
use crate::provider::Model;
use crate::provider::prices::Price;
use crate::provider::routes::{Catalog, Route};
use crate::session::{Judge, JudgeModel};

impl Runtime {
    /// Finds the provider for a model id and makes sure that it can be asked.
    ///
    /// # Errors
    /// An unknown route, or a key that is missing.
    pub fn check_model(&self, model: &str) -> Result<Route, RuntimeError> {
        let (route, _) = self.model(model)?;
        Ok(route)
    }

    /// The models that are known by name: the configured one, those that routes name, the usual one of each provider
    /// with a key, and whatever the servers on this machine have. Sorted.
    pub async fn models(&self) -> Vec<String> {
        let mut models = self.shared.config.named_models();
        models.extend(detected(&self.shared.catalog).await);
        models.sort_unstable();
        models.dedup();
        models
    }

    pub(super) fn model(&self, id: &str) -> Result<(Route, Arc<dyn Model>), RuntimeError> {
        let route = self.shared.catalog.routes().resolve(id)?;
        let model = self.shared.catalog.model(&route)?;
        Ok((route, model))
    }

    pub(super) fn price(&self, route: &Route) -> Option<Price> {
        let is_local = self.shared.catalog.routes().is_local(&route.provider);
        self.shared.config.prices.of(route, is_local)
    }

    /// An agent whose calls are to be judged takes a judge that can be asked, where one is configured.
    pub(super) fn check_judge(&self, agent: &Agent) -> Result<(), RuntimeError> {
        let judge = self.shared.config.judge.as_deref().filter(|_| agent.is_judged());
        judge.map_or(Ok(()), |judge| self.check_model(judge).map(drop))
    }

    pub(super) fn judge(&self) -> Option<Judge> {
        let name = self.shared.config.judge.clone()?;
        let model = self.model(&name).map(|(route, model)| {
            let price = self.price(&route);
            JudgeModel { model, id: route.model, price }
        });
        Some(Judge { name, model: model.map_err(|error| error.to_string()) })
    }

    /// A budget of money takes a model whose price is known.
    pub(super) fn check_budgetable(
        &self,
        model: &str,
        budget: &Budget,
    ) -> Result<(), RuntimeError> {
        let route = self.shared.catalog.routes().resolve(model)?;
        if budget.max_list_cost.is_some() && self.price(&route).is_none() {
            return Err(RuntimeError::NotBudgetable { model: route.to_string() });
        }
        Ok(())
    }
}

/// The models of the servers on this machine, as `PROVIDER/MODEL`, those of one server in its own order.
pub async fn local_models(config: &Config) -> Vec<String> {
    let Ok(catalog) = config.catalog() else { return Vec::new() };
    detected(&catalog).await
}

async fn detected(catalog: &Catalog) -> Vec<String> {
    let found = catalog.detect_local(LOCAL_PROBE_TIMEOUT).await.into_iter();
    let names = found.flat_map(|server| {
        server.models.into_iter().map(move |model| format!("{}/{model}", server.provider))
    });
    names.collect()
}
