package main

import (
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// removedSecret stands where a secret was.
const removedSecret = "(removed)"

var (
	// secretNames are names of options whose values are nobody else's business:
	// passwords, and URLs with passwords in them.
	secretNames = regexp.MustCompile(`password|secret|token$|connection$|^transport_url$`)
	// credentials are those of a URL.
	credentials = regexp.MustCompile(`://[^/\s"'@]+@`)
)

// secret reports whether the value of an option is one.
func (o *option) secret() bool { return slices.ContainsFunc(o.Names, secretNames.MatchString) }

// shownConfig is the whole configuration as a file, without secrets.
func shownConfig(cfg *Config) []byte {
	sections := map[string][]string{}
	var order []string
	for _, o := range options {
		if len(o.Names) == 0 {
			continue // a flag that stands for others
		}
		section := o.Sections[0]
		if sections[section] == nil {
			order = append(order, section)
		}
		sections[section] = append(sections[section], o.Names[0]+" = "+o.shown(cfg))
	}
	var text strings.Builder
	for _, section := range order {
		fmt.Fprintf(&text, "[%s]\n%s\n\n", section, strings.Join(sections[section], "\n"))
	}
	return []byte(text.String())
}

// shown is the value of an option, or whether it has one where that is a secret.
func (o *option) shown(cfg *Config) string {
	value := reflect.ValueOf(o.Into(cfg))
	for value.Kind() == reflect.Pointer && !value.IsNil() {
		value = value.Elem()
	}
	if !o.secret() {
		return credentials.ReplaceAllString(fmt.Sprint(value), "://"+removedSecret+"@")
	}
	if value.IsZero() {
		return ""
	}
	scheme, _, isURL := strings.Cut(fmt.Sprint(value), "://")
	if isURL {
		return scheme + "://" + removedSecret
	}
	return removedSecret
}

// minSecret is how long a secret must be to be looked for everywhere: a shorter
// one would take half of the words away.
const minSecret = 4

// withoutSecrets takes the secrets of a configuration out of any text, where a
// message of somebody else repeats one.
func withoutSecrets(cfg *Config) *strings.Replacer {
	var pairs []string
	for _, s := range secretsOf(cfg) {
		for _, form := range []string{s, url.QueryEscape(s), url.PathEscape(s)} {
			if len(form) >= minSecret && !slices.Contains(pairs, form) {
				pairs = append(pairs, form, removedSecret)
			}
		}
	}
	return strings.NewReplacer(pairs...)
}

// secretsOf are the passwords that a configuration has, but for those that
// everybody knows, the longest first.
func secretsOf(cfg *Config) (list []string) {
	for _, o := range options {
		if !o.secret() {
			continue
		}
		switch v := o.Into(cfg).(type) {
		case *transportURL:
			list = append(list, v.password)
		case *databaseURL:
			list = append(list, passwordsIn(string(*v))...)
		case *string:
			if *v != o.Default {
				list = append(list, *v)
			}
		}
	}
	slices.SortFunc(list, func(a, b string) int { return len(b) - len(a) })
	return list
}

// passwordsIn are those of the URL of a database, with the URL itself.
func passwordsIn(dsn string) []string {
	if !strings.HasPrefix(dsn, "postgresql://") {
		return nil // a file has none
	}
	list := []string{dsn}
	u, err := url.Parse(dsn)
	if err != nil {
		return list
	}
	if password, ok := u.User.Password(); ok {
		list = append(list, password)
	}
	for name, values := range u.Query() {
		if strings.Contains(name, "password") {
			list = append(list, values...)
		}
	}
	return list
}
