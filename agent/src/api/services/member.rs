//! `MemberService`: what members ask of one another, on behalf of whoever coordinates.
//!
//! Calls that name a term of their own are not compared with this node's reign: the member's promise and log judge them,
//! and what they say comes back as `DECLINED`.

use holdfast_proto::convert::Wire;
use holdfast_proto::reply::Closed;
use holdfast_proto::request::{AskNear, AskVote, AwaitPosition, Close, Follow, Promote, Recruit, Reopen};
use holdfast_proto::v1;
use holdfast_proto::v1::member_service_server::MemberService;
use tonic::{Request, Response, Status};

use super::Services;
use crate::api::control::Control;

#[tonic::async_trait]
impl<C: Control> MemberService for Services<C> {
    async fn get_rules(
        &self,
        _request: Request<v1::GetRulesRequest>,
    ) -> Result<Response<v1::GetRulesResponse>, Status> {
        let rules = self.control.rules().await?;
        Ok(Response::new(v1::GetRulesResponse { rules: rules.iter().map(Wire::to_wire).collect() }))
    }

    async fn ask_vote(
        &self,
        request: Request<v1::AskVoteRequest>,
    ) -> Result<Response<v1::AskVoteResponse>, Status> {
        let request = self.admit(request.into_inner(), |ask: &AskVote| &ask.target)?;
        Ok(Response::new(self.control.ask_vote(request).await?.to_wire()))
    }

    async fn ask_near(
        &self,
        request: Request<v1::AskNearRequest>,
    ) -> Result<Response<v1::AskNearResponse>, Status> {
        let request = self.admit(request.into_inner(), |ask: &AskNear| &ask.target)?;
        Ok(Response::new(v1::AskNearResponse { near: self.control.ask_near(request).await? }))
    }

    async fn recruit(
        &self,
        request: Request<v1::RecruitRequest>,
    ) -> Result<Response<v1::RecruitResponse>, Status> {
        let request = self.admit_member(request.into_inner(), |recruit: &Recruit| &recruit.target)?;
        let report = self.control.recruit(request).await?;
        Ok(Response::new(v1::RecruitResponse { report: Some(report.to_wire()) }))
    }

    async fn promote(
        &self,
        request: Request<v1::PromoteRequest>,
    ) -> Result<Response<v1::PromoteResponse>, Status> {
        let request = self.admit_member(request.into_inner(), |promote: &Promote| &promote.target)?;
        let rule = self.control.promote(request).await?;
        Ok(Response::new(v1::PromoteResponse { rule: Some(rule.to_wire()) }))
    }

    async fn follow(
        &self,
        request: Request<v1::FollowRequest>,
    ) -> Result<Response<v1::FollowResponse>, Status> {
        let request = self.admit_member(request.into_inner(), |follow: &Follow| &follow.target)?;
        self.control.follow(request).await?;
        Ok(Response::new(v1::FollowResponse {}))
    }

    async fn close(&self, request: Request<v1::CloseRequest>) -> Result<Response<v1::CloseResponse>, Status> {
        let request = self.admit(request.into_inner(), |close: &Close| &close.target)?;
        let position = self.control.close(request).await?;
        Ok(Response::new(Closed { position }.to_wire()))
    }

    async fn await_position(
        &self,
        request: Request<v1::AwaitPositionRequest>,
    ) -> Result<Response<v1::AwaitPositionResponse>, Status> {
        let request = self.admit(request.into_inner(), |wait: &AwaitPosition| &wait.target)?;
        self.control.await_position(request).await?;
        Ok(Response::new(v1::AwaitPositionResponse {}))
    }

    async fn reopen(
        &self,
        request: Request<v1::ReopenRequest>,
    ) -> Result<Response<v1::ReopenResponse>, Status> {
        let request = self.admit(request.into_inner(), |reopen: &Reopen| &reopen.target)?;
        self.control.reopen(request).await?;
        Ok(Response::new(v1::ReopenResponse {}))
    }
}
