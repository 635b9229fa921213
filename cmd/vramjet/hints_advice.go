package main

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/vramjet/vramjet/providers"
)

// advice is what to do about each cause.
var advice = map[cause]func(*situation, *finding) []string{
	causeRefused:     adviseRefused,
	causeUnknownHost: adviseUnknownHost,
	causeNoRoute:     says("no way leads to that host from here: check the address, the network and the firewall"),
	causeTimeout:     says("a firewall may drop what comes in on that port, or the host is off: try it from the server's own machine"),
	causeSilent:      says("the server accepts connections and says nothing: look at its log, it may hang or be something else"),
	causeTLSNeeded: func(s *situation, _ *finding) []string {
		return []string{"set the url to https://" + s.at.Host + s.at.Path}
	},
	causeTLSUnwanted: func(s *situation, _ *finding) []string {
		return []string{"set the url to http://" + s.at.Host + s.at.Path}
	},
	causeCertificate: says("the machine must trust who signed the server's certificate: add it to the system's authorities, or name a file of them in $SSL_CERT_FILE; the url's host must be one that the certificate names"),
	causeBroken:      says("the server or something before it ended the connection: look at its log"),
	causeRedirected: func(_ *situation, f *finding) []string {
		return []string{"redirects are not followed, they would take the key along: set the url to that of " + strings.Join(f.About, "")}
	},
	causeWrongPath:   adviseWrongPath,
	causeWrongKind:   func(_ *situation, f *finding) []string { return []string{"set kind: " + strings.Join(f.About, "")} },
	causeUnknownKind: says("name its kind where it is known: openai does for whatever speaks OpenAI's API. Else check the path of the url"),
	causeKeyMissing: func(_ *situation, f *finding) []string {
		return []string{"set the variable " + strings.Join(f.About, "") + " in the environment of the worker"}
	},
	causeKeyRefused:   adviseKey,
	causeKeyForbidden: adviseForbidden,

	causeNoModels: func(s *situation, _ *finding) []string { return []string{"give it a model: " + s.manual().pull} },
	causeNoMatch: func(_ *situation, f *finding) []string {
		return []string{"correct models: there are " + strings.Join(f.About, ", ") + " (* stands for anything but a slash)"}
	},
	causeSmallContext: func(s *situation, _ *finding) []string {
		return []string{"longer prompts are refused, or cut by some servers without a word: " + s.manual().context}
	},
	causeSlotsUnknown: says("a model gets one job at a time unless slots says more: OLLAMA_NUM_PARALLEL cannot be read, so set slots to it"),
	causeMetricsOff:   says("start llama-server with --metrics"),
	causeSlotsOff:     adviseSlotsOff,
	causeRouterLoads:  says("vramjet decides what is loaded: start the router with --no-models-autoload"),
	causeSwapTTL:      says("vramjet decides what is unloaded: set ttl to 0 in llama-swap's configuration"),
	causeSwapDecorates: says(
		"set sendLoadingState to false in llama-swap's configuration: else a load that fails looks like an answer that has begun"),

	causeModelNotFound: adviseModelNotFound,
	causeLoading: func(_ *situation, f *finding) []string {
		if f.Step == stepModels {
			return []string{"the server still loads its model: try again later"}
		}
		return []string{"load it in the server, or have the server load what it is asked for"}
	},
	causeContextOverflow: func(s *situation, _ *finding) []string {
		return []string{"even a short prompt is too long: " + s.manual().context}
	},
	causeOutOfMemory: says("unload another model, choose a smaller one or a smaller quantisation, or a smaller context; nvidia-smi shows who else uses the GPU"),
	causeQuota:       adviseQuota,
	causeRateLimited: says("too many requests for now: wait, use several keys in keys_env, or fewer slots; no money is missing"),
	causeOverloaded:  says("the server is full: try again when it does less"),
	causeCutOff:      says("the answer ended without its final marker: the server, or a proxy before it, gave up in the middle; look at its log, and at the proxy's timeouts and buffering"),
	causeUnsupported: func(s *situation, _ *finding) []string {
		return []string{"the server cannot do that as it was started: check its kind and options, and that the url is that of " + s.manual().name}
	},
	causeServerError: says("the server failed: its log says why"),
	causeSlow: func(s *situation, _ *finding) []string {
		return []string{"does it run on the CPU, wholly or in part? Put all layers on the GPU: " + s.manual().layers}
	},
	causeSlowStart: says("other requests may have been before it, or the model was not loaded in truth: check again; else the prompt is read slowly, which is the CPU's pace"),
}

// says is an advice that is always the same.
func says(text string) func(*situation, *finding) []string {
	return func(*situation, *finding) []string { return []string{text} }
}

func adviseRefused(s *situation, _ *finding) []string {
	m := s.manual()
	start := "is " + m.name + " running?"
	if m.start != "" {
		start += " Start it: " + m.start
	}
	if len(m.ports) > 0 && !slices.Contains(m.ports, s.at.Port()) {
		start += fmt.Sprintf(" (it listens on %s unless told otherwise)", strings.Join(m.ports, " or "))
	}
	found := []string{start}
	for _, n := range s.neighbours {
		what := "something that is no known model server"
		if n.kind != "" {
			what = manuals[n.kind].label(n.kind)
		}
		found = append(found, fmt.Sprintf("%s answers on %s: %s", what, n.url[strings.LastIndexByte(n.url, ':')+1:], n.url))
	}
	switch {
	case !isLoopback(s.at.Hostname()):
		found = append(found, "it may listen on its own 127.0.0.1 only: "+m.listen)
	case s.container:
		port := s.at.Port()
		found = append(found, fmt.Sprintf("we run in a container, where %s is the container itself: use http://host.docker.internal:%s (on Linux with --add-host=host.docker.internal:host-gateway) or http://172.17.0.1:%s, and let the server listen on all addresses: %s",
			s.at.Hostname(), port, port, m.listen))
	}
	return found
}

func adviseUnknownHost(s *situation, _ *finding) []string {
	if s.at.Hostname() == "host.docker.internal" {
		return []string{"outside Docker Desktop that name needs --add-host=host.docker.internal:host-gateway; or use 172.17.0.1"}
	}
	return []string{"the name " + s.at.Hostname() + " means nothing here: check its spelling, and the DNS of this machine or container"}
}

func adviseWrongPath(s *situation, f *finding) []string {
	if len(f.About) > 0 {
		return []string{"set the url to " + f.About[0]}
	}
	text := "the path of the url is wrong, or the kind is: it is what stands before /v1 in the server's documentation"
	if strings.Count(s.at.Path, "/v1") > 1 {
		text = "the url has /v1 twice: leave one out"
	}
	return []string{text}
}

func adviseKey(s *situation, _ *finding) []string {
	if len(s.keys) == 0 {
		return []string{"the server wants a key: name the environment variable that holds it in keys_env (--key-env with --url)"}
	}
	header := "Authorization: Bearer"
	switch s.kind {
	case providers.KindAnthropic:
		header = "x-api-key"
	case providers.KindAzure:
		header = "api-key"
	}
	return []string{fmt.Sprintf("check the key in $%s: is it whole, of this provider, and not revoked? It is sent as %s", strings.Join(s.keys, ", $"), header)}
}

func adviseForbidden(s *situation, _ *finding) []string {
	if len(s.keys) == 0 {
		return []string{"the server refuses us without a key: name the variable that holds one in keys_env, or have it allow this machine"}
	}
	return []string{fmt.Sprintf("the key in $%s is known and may not do this: give it the right at the provider, or use another", strings.Join(s.keys, ", $"))}
}

func adviseModelNotFound(s *situation, f *finding) []string {
	text := "the server does not have it under that name"
	if len(f.About) > 0 {
		text = "correct the name: there are " + strings.Join(f.About, ", ")
	}
	return []string{text, "or get the model: " + s.manual().pull}
}

func adviseQuota(s *situation, _ *finding) []string {
	text := "no money or quota is left, which waiting does not mend: pay or raise the limit at the provider"
	if len(s.keys) > 0 {
		text += " of the key in $" + strings.Join(s.keys, ", $")
	}
	return []string{text}
}

func adviseSlotsOff(s *situation, _ *finding) []string {
	switch s.kind {
	case providers.KindLlamaCpp, providers.KindLlamaRouter, providers.KindLlamaSwap:
		return []string{"start llama-server with --slots --metrics: how busy it is is not told else"}
	default:
		return []string{"start " + s.manual().name + " with its metrics: how busy it is is not told else"}
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
