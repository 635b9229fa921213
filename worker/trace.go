package worker

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// tracer makes the spans of a worker, where otel.SetTracerProvider says where they go.
var tracer = otel.Tracer("github.com/vramjet/vramjet/worker")

// traceRun begins the span of an attempt, as part of the trace that the offer names.
func (a *attempt) traceRun(ctx context.Context) (context.Context, trace.Span) {
	ctx, span := tracer.Start(
		schemas.WithTraceparent(ctx, a.offer.header.Get(schemas.HeaderTrace)), "run "+a.offer.Model,
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(a.offer.received))
	if job := a.offer.Job; span.IsRecording() {
		span.SetAttributes(
			attribute.String("messaging.system", "nats"), attribute.String("messaging.message.id", job.ID),
			attribute.String("vramjet.tenant", job.Flow.Tenant), attribute.String("vramjet.class", string(job.Flow.Class)),
			attribute.String("vramjet.node", a.w.cfg.Node), attribute.String("vramjet.backend", a.backend.Name),
			attribute.Int("vramjet.attempt", int(a.offer.Attempt)), //nolint:gosec // a few
		)
	}
	return ctx, span
}

// traceLoad begins the span of the wait for a model.
func (a *attempt) traceLoad(ctx context.Context) trace.Span {
	_, span := tracer.Start(ctx, "load "+a.offer.Model) //nolint:spancheck // the caller ends it
	return span                                         //nolint:spancheck // as above
}

// traceCall begins the span of a request to the model server, as OpenTelemetry's
// conventions for generative AI have it.
func (a *attempt) traceCall(ctx context.Context, req providers.Request) (context.Context, trace.Span) {
	operation := operations[req.Kind]
	ctx, span := tracer.Start(ctx, operation+" "+req.Model, trace.WithSpanKind(trace.SpanKindClient))
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("gen_ai.operation.name", operation), attribute.String("gen_ai.provider.name", a.backend.Kind),
			attribute.String("gen_ai.request.model", req.Model),
		)
	}
	return ctx, span
}

// operations are kinds of jobs as OpenTelemetry names them.
var operations = map[schemas.Kind]string{schemas.Chat: "chat", schemas.Completion: "text_completion", schemas.Embedding: "embeddings"}

// endCall ends it, with what it brought.
func (a *attempt) endCall(span trace.Span, answer providers.Answer, err error) {
	if span.IsRecording() {
		if !a.first.IsZero() {
			span.AddEvent("first token", trace.WithTimestamp(a.first))
		}
		span.SetAttributes(
			attribute.String("gen_ai.response.model", answer.Model), attribute.Int("vramjet.chunks", a.chunks),
			attribute.Int("gen_ai.usage.input_tokens", answer.Usage.PromptTokens), attribute.Int("gen_ai.usage.output_tokens", answer.Usage.CompletionTokens),
		)
	}
	endSpan(span, err)
}

// endSpan ends a span. What an error says may be of a job's content: only its code is
// told.
func endSpan(span trace.Span, err error) {
	if err != nil && span.IsRecording() {
		code := string(schemas.AsError(err).Code)
		span.SetStatus(codes.Error, code)
		span.SetAttributes(attribute.String("error.type", code))
	}
	span.End(trace.WithTimestamp(time.Now()))
}
