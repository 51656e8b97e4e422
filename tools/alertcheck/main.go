// Alertcheck evaluates alerts over invented series, with the engine and the rules of Prometheus.
//
// Standard input is JSON: the path of a file of rule groups, and scenarios with series in the notation of
// `promtool test rules` (one sample a minute) and a number of minutes. Standard output is JSON: the firing alerts at the
// end of each scenario.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
)

const interval = time.Minute

type scenario struct {
	Series  map[string]string `json:"series"`
	Minutes int               `json:"minutes"`
}

type alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func main() {
	var input struct {
		Rules     string     `json:"rules"`
		Scenarios []scenario `json:"scenarios"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&input); err != nil {
		fail(err)
	}
	found := make([][]alert, len(input.Scenarios))
	for number, each := range input.Scenarios {
		alerts, err := firing(input.Rules, each)
		if err != nil {
			fail(fmt.Errorf("scenario %d: %w", number, err))
		}
		found[number] = alerts
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		fail(err)
	}
}

// firing returns the alerts that fire at the end of a scenario.
func firing(path string, given scenario) (alerts []alert, err error) {
	var text strings.Builder
	text.WriteString("load 1m\n")
	for name, values := range given.Series {
		fmt.Fprintf(&text, "  %s %s\n", name, values)
	}
	language := parser.NewParser(parser.Options{})
	options := promqltest.LazyLoaderOpts{EnableAtModifier: true, EnableNegativeOffset: true, Parser: language}
	suite, err := promqltest.NewLazyLoader(text.String(), options)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, suite.Close()) }()
	suite.SubqueryInterval = interval
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc:    rules.EngineQueryFunc(suite.QueryEngine(), suite.Storage()),
		AppendableV2: suite.Storage(),
		Context:      context.Background(),
		NotifyFunc:   func(context.Context, string, ...*rules.Alert) {},
		Logger:       promslog.NewNopLogger(),
		Parser:       language,
	})
	groups, errs := manager.LoadGroups(interval, labels.EmptyLabels(), "", nil, false, path)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	start := time.Unix(0, 0).UTC()
	for minute := 0; minute <= given.Minutes; minute++ {
		now := start.Add(time.Duration(minute) * interval)
		suite.WithSamplesTill(now, func(loading error) {
			err = errors.Join(err, loading)
			for _, group := range groups {
				group.Eval(suite.Context(), now)
			}
		})
	}
	for _, group := range groups {
		for _, rule := range group.Rules() {
			if rule.LastError() != nil {
				err = errors.Join(err, fmt.Errorf("%s: %w", rule.Name(), rule.LastError()))
			}
			if alerting, ok := rule.(*rules.AlertingRule); ok {
				alerts = append(alerts, active(alerting)...)
			}
		}
	}
	return alerts, err
}

func active(rule *rules.AlertingRule) (alerts []alert) {
	for _, each := range rule.ActiveAlerts() {
		if each.State == rules.StateFiring {
			alerts = append(alerts, alert{each.Labels.Map(), each.Annotations.Map()})
		}
	}
	return alerts
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
