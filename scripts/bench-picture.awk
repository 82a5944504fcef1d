# Draws the picture of the benchmark from its report:
#
#   awk -f scripts/bench-picture.awk scripts/README.md >scripts/bench.svg
#
# A bar is the ratio of ours to Redis's, on a scale where twice and half are as long. It goes to the
# right where ours is better and to the left, hatched, where Redis is: no colour is needed to tell.
# The picture has a background of its own, so it can be read on a light page and on a dark one.
# Which rows are shown stands in BEGIN; what is not found in the report is a failure.

BEGIN {
    group("Commands a second, values of 32 B, no log")
    show("Rates, no log, values of 32 B", "GET, 1 client, pipeline 1")
    show("Rates, no log, values of 32 B", "GET, 50 clients, pipeline 1")
    show("Rates, no log, values of 32 B", "GET, 50 clients, pipeline 16")
    show("Rates, no log, values of 32 B", "GET, 50 clients, pipeline 64")
    show("Rates, no log, values of 32 B", "SET, 50 clients, pipeline 1")
    show("Rates, no log, values of 32 B", "SET, 50 clients, pipeline 16")
    group("Commands a second, values of 32 B, appendonly yes, everysec")
    show("Rates, appendonly yes, everysec, values of 32 B", "SET, 1 client, pipeline 1")
    show("Rates, appendonly yes, everysec, values of 32 B", "SET, 50 clients, pipeline 1")
    show("Rates, appendonly yes, everysec, values of 32 B", "SET, 50 clients, pipeline 16")
    show("Rates, appendonly yes, everysec, values of 32 B", "SET, 50 clients, pipeline 64")
    group("Commands a second, others")
    show("Rates, no log, values of 16 KiB", "GET, 50 clients, pipeline 16", "GET of 16 KiB, 50 clients, pipeline 16")
    show("Rates, no log, values of 1 MiB", "GET, 1 client, pipeline 1", "GET of 1 MiB, 1 client")
    show("Messages of 100 B, each to 10 subscribers", "PUBLISH, 50 clients, pipeline 1", "PUBLISH to 10 subscribers, 50 clients")
    show("Replay, from start to ready", "2 M commands", "Replay of 2 M commands at start")
    group("99th percentile, appendonly yes, everysec (less is better)")
    show("99th percentile, values of 32 B", "SET, 50 clients, pipeline 1, everysec", "SET, 50 clients, pipeline 1")
    show("99th percentile, values of 32 B", "SET, 50 clients, pipeline 16, everysec", "SET, 50 clients, pipeline 16")
    group("The longest wait of one client beside (less is better)")
    show("Pauses: the longest wait of one client beside", "a rewrite of 1 M keys under writes")
    show("Pauses: the longest wait of one client beside", "1 M keys that expire together")
    show("Pauses: the longest wait of one client beside", "FLUSHALL of 1 M keys")
    group("Memory, and connections (less is better)")
    show("Memory", "1 M strings (key 16 B, value 32 B), each", "A string of 32 B, its key of 16 B")
    show("Memory", "1 M hashes of 5 small fields, each", "A hash of 5 small fields")
    show("Connections", "9 k idle connections, memory each", "An idle connection")
    show("Connections", "1,000 connects at once, until all have an answer", "1,000 connects at once")
}

# The full report comes after this line; before it some rows stand once already.
/<summary>All that was measured/ { full = 1 }
/^#### / { heading = $0; sub(/^#### /, "", heading); sub(/ \((more|less) is better\)$/, "", heading) }
full && /^\| / {
    count = split($0, cell, / *\| */)
    if (count < 6 || cell[5] !~ /\*\*/) next
    row = heading SUBSEP cell[2]
    ours[row] = first(cell[3]); redis[row] = first(cell[4])
    split(cell[5], bold, /\*\*/); ratio[row] = bold[2]
}
/^`scripts\/bench.sh`, / { about = $0; gsub(/`/, "", about); split(about, of, /; data on /) }

function group(text) { kind[++lines] = "group"; text_of[lines] = text }
function show(heading, title, label) {
    kind[++lines] = "row"; key[lines] = heading SUBSEP title
    text_of[lines] = label == "" ? title : label
    lower[lines] = heading ~ /^(99th|Pauses|Memory|Connections)/
}
function first(cell) { sub(/ · .*/, "", cell); return cell }
function at(x) { return middle + log(x) / log(2) * step }
function plain(text) { gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text); return text }
function say(class, x, y, text) { printf "<text class=\"%s\" x=\"%.0f\" y=\"%.0f\">%s</text>\n", class, x, y, plain(text) }

END {
    width = 900; middle = 490; step = 75; most = 4
    for (i = 1; i <= lines; i++) {
        height += kind[i] == "group" ? 34 : 22
        if (kind[i] == "row" && !(key[i] in ratio)) {
            sub(SUBSEP, ": ", key[i])
            print "bench-picture: the report has no row " key[i] >"/dev/stderr"
            exit 1
        }
    }
    top = 74; bottom = top + height + 8
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\">\n", width, bottom + 66, width, bottom + 66
    print "<title>simple-redis beside Redis 7.0.15: bars to the right are better than Redis, hatched bars to the left are worse</title>"
    print "<style>"
    print "  .page { fill: #ffffff; stroke: #d0d7de }  text { font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2328 }"
    print "  .title { font-weight: 700; font-size: 16px }  .group { font-weight: 700 }  .small, .tick { font-size: 11px; fill: #59636e }"
    print "  .tick, .above { text-anchor: middle }  .left { text-anchor: end }  .number, .head { text-anchor: end }  .ratio { font-weight: 700 }  .head { font-weight: 700 }"
    print "  .grid { stroke: #d0d7de }  .one { stroke: #1f2328; stroke-width: 2 }  .better { fill: #1a7f37 }  .worse { fill: url(#hatch); stroke: #bc4c00 }  .hatch { stroke: #bc4c00; stroke-width: 3 }"
    print "  @media (prefers-color-scheme: dark) {"
    print "    .page { fill: #0d1117; stroke: #3d444d }  text { fill: #e6edf3 }  .small, .tick { fill: #9198a1 }"
    print "    .grid { stroke: #3d444d }  .one { stroke: #e6edf3 }  .better { fill: #3fb950 }  .worse { stroke: #f0883e }  .hatch { stroke: #f0883e }"
    print "  }"
    print "</style>"
    print "<defs><pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\"><line class=\"hatch\" x1=\"0\" y1=\"0\" x2=\"0\" y2=\"6\"/></pattern></defs>"
    printf "<rect class=\"page\" x=\"0.5\" y=\"0.5\" width=\"%d\" height=\"%d\" rx=\"6\"/>\n", width - 1, bottom + 65
    say("title", 20, 30, "simple-redis beside Redis 7.0.15, on one machine")
    say("left", middle - 10, 56, "◀ Redis is better")
    say("", middle + 10, 56, "simple-redis is better ▶")
    say("head", 790, 56, "simple-redis"); say("head", 882, 56, "Redis")
    for (x = 1 / most; x <= most; x *= 2) {
        printf "<line class=\"%s\" x1=\"%.0f\" y1=\"%d\" x2=\"%.0f\" y2=\"%d\"/>\n", x == 1 ? "one" : "grid", at(x), top - 8, at(x), bottom
        say("tick", at(x), bottom + 14, x < 1 ? sprintf("1/%d", 1 / x) : x == 1 ? "the same" : sprintf("%d ×", x))
    }
    y = top
    for (i = 1; i <= lines; i++) {
        if (kind[i] == "group") { y += 34; say("group", 20, y - 9, text_of[i]); continue }
        y += 22
        r = ratio[key[i]] + 0
        # A ratio that is shown as 0.00 cannot be divided by.
        x = lower[i] ? 1 / (r > 0 ? r : 0.005) : r
        beyond = x > most || x < 1 / most
        end = x > most ? most : x < 1 / most ? 1 / most : x
        left = end < 1 ? at(end) : middle
        size = end < 1 ? middle - at(end) : at(end) - middle
        say("", 32, y - 6, text_of[i])
        printf "<rect class=\"%s\" x=\"%.1f\" y=\"%.0f\" width=\"%.1f\" height=\"13\"/>\n", end < 1 ? "worse" : "better", left, y - 17, size < 1 ? 1 : size
        label = ratio[key[i]]
        if (end < 1) say("ratio left", left - 5, y - 6, (beyond ? "◀ " : "") label)
        else say("ratio", left + size + 5, y - 6, label (beyond ? " ▶" : ""))
        say("number", 790, y - 6, ours[key[i]]); say("number", 882, y - 6, redis[key[i]])
    }
    say("small", 20, bottom + 36, "The number at a bar is ours divided by Redis's, the median of alternating runs; the scale is logarithmic.")
    say("small", 20, bottom + 52, of[1] "; data on " of[2])
    print "</svg>"
}
