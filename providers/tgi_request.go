package providers

import (
	"encoding/json"
	"maps"
	"strconv"
)

// tgiWords say what becomes of a completion's members, and of TGI's own, which a
// caller may use who knows what it speaks to.
var tgiWords = map[string]translator{
	"model": drop, "vramjet": drop, "stream": drop, "stream_options": drop,
	"user": drop, "safety_identifier": drop, "metadata": drop, "prompt_cache_key": drop, "prediction": drop,

	"prompt": prompt, "max_tokens": optionAs("max_new_tokens"), "max_completion_tokens": optionAs("max_new_tokens"),
	"temperature": option, "top_p": topP, "top_k": option, "seed": option, "stop": option,
	"frequency_penalty": option, "repetition_penalty": option,
	"logprobs": tgiLogprobs, "response_format": tgiFormat("grammar"),

	"n": only("1"), "best_of": only("1"), "logit_bias": only("{}"), "echo": only("false"), "store": only("false"), "suffix": only(`""`),
	"presence_penalty": only("0", "0.0"), "service_tier": only(`"auto"`, `"default"`),

	"typical_p": option, "truncate": option, "watermark": option, "grammar": option, "adapter_id": option,
}

// tgiChatWords are the members that TGI's chat takes for something else than
// OpenAI's. All others are as OpenAI's, and pass.
var tgiChatWords = map[string]translator{
	"stop": option, "top_p": topP, "response_format": tgiFormat("response_format"),
	"n": only("1"), "logit_bias": only("{}"), // which it leaves unused
	"presence_penalty": only("0", "0.0"), // it makes a penalty for repetition of 2 out of a 0
	anyOther:           pass,
}

// toTGI returns the body of a completion in TGI's dialect, and whether its answer
// is to hold logprobs.
func toTGI(req Request) (body []byte, logprobs bool, err error) {
	t, err := translate("TGI", req, tgiWords)
	if err != nil {
		return nil, false, err
	}
	if err := t.check(); err != nil {
		return nil, false, err
	}
	likeliest := greedy(t.options)
	if likeliest {
		delete(t.options, "temperature") // it must be above 0
	}
	t.options["do_sample"] = marshal(!likeliest)
	t.options["details"] = json.RawMessage("true") // else it does not say why it stopped
	if t.options["adapter_id"] == nil {
		t.options["adapter_id"] = quote(req.Model) // as its /v1 does: the base model, where there is no such adapter
	}
	return marshal(map[string]json.RawMessage{"inputs": t.out["prompt"], "parameters": marshal(t.options)}), t.out["logprobs"] != nil, nil
}

// toTGIChat returns the body of a chat in OpenAI's dialect as TGI reads it.
func toTGIChat(req Request) ([]byte, error) {
	t, err := translate("TGI", req, tgiChatWords)
	if err != nil {
		return nil, err
	}
	maps.Copy(t.out, t.options)
	greedy(t.out)
	return marshal(t.out), nil
}

// greedy reports whether the temperature is 0: the likeliest token is taken then.
// TGI would sample all the same where something says among which tokens.
func greedy(sampling map[string]json.RawMessage) bool {
	temperature, err := strconv.ParseFloat(string(sampling["temperature"]), 64)
	if err != nil || temperature != 0 {
		return false
	}
	for _, name := range []string{"top_p", "top_k", "typical_p"} {
		delete(sampling, name)
	}
	return true
}

// optionAs makes a member an option of another name.
func optionAs(to string) translator {
	return func(t *translation, _ string, raw json.RawMessage) error { return option(t, to, raw) }
}

// topP leaves out the 1 that stands for all tokens, which TGI refuses.
func topP(t *translation, name string, raw json.RawMessage) error {
	if p, err := strconv.ParseFloat(string(raw), 64); err == nil && p == 1 {
		return nil
	}
	return option(t, name, raw)
}

// tgiLogprobs asks for those of the likeliest tokens. That of the token itself
// comes in any case.
func tgiLogprobs(t *translation, name string, raw json.RawMessage) error {
	n := atoi(raw)
	switch {
	case string(raw) == "false":
		return nil
	case n < 0:
		return wrong(name, "must be a number of tokens in a completion")
	case n > 0:
		t.options["top_n_tokens"] = raw
	}
	t.out[name] = raw
	return nil
}

// tgiFormat turns OpenAI's formats into TGI's grammars, as the member to. TGI's
// own pass.
func tgiFormat(to string) translator {
	return func(t *translation, name string, raw json.RawMessage) error {
		var f struct {
			Type   string          `json:"type"`
			Value  json.RawMessage `json:"value"`
			Schema struct {
				Schema json.RawMessage `json:"schema"`
			} `json:"json_schema"`
		}
		if json.Unmarshal(raw, &f) != nil {
			return wrong(name, "must be an object")
		}
		switch {
		case f.Value != nil:
			t.options[to] = raw
		case f.Type == "json_schema" && f.Schema.Schema != nil:
			t.options[to] = slicesConcat(`{"type":"json","value":`, f.Schema.Schema, "}")
		case f.Type != "text":
			return t.unsupported(name, ` of the type "`+f.Type+`"`)
		}
		return nil
	}
}
