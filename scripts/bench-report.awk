# Turns the samples of bench.sh into the Markdown tables of scripts/README.md: first the rows that have a
# target, then, folded up, all of them.
#
# In, one measurement a line, separated by tabs: heading, title, unit, target, side, round, value,
# CPU seconds. A heading and a title make a row; what is measured beside ours is Redis, or the
# server that only answers +PONG. A target is `ratio` or `ours`, `>=` or `<=`, and a number.
# With -v quick=yes no target is judged.

BEGIN { FS = "\t" }

{
    row = $1 FS $2
    if (!(row in unit)) {
        order[++rows] = row; heading[row] = $1; title[row] = $2; unit[row] = $3; target[row] = $4
        if (!($1 in other)) { headings[++sections] = $1; other[$1] = "Redis" }
    }
    if ($5 == "pong") other[$1] = "+PONG"
    side = $5 == "ours" ? "ours" : "other"
    value[row, side, $6] = $7
    cpu[row, side, $6] = $8
    if ($6 > rounds) rounds = $6
}

END {
    for (s = 1; s <= sections; s++) {
        some = 0
        for (r = 1; r <= rows; r++) {
            if (heading[order[r]] != headings[s] || target[order[r]] == "") continue
            if (!some++) open_table(headings[s], " target |")
            print_row(order[r], " " judge(order[r]) " |")
        }
    }
    if (quick != "") print "\nOne short run of each: that it runs is all this says."
    else if (judged) printf "\n%d of %d targets are met.%s\n", met, judged, missed == "" ? "" : " Missed:\n" missed
    print "\n<details><summary>All that was measured</summary>"
    for (s = 1; s <= sections; s++) {
        open_table(headings[s], "")
        for (r = 1; r <= rows; r++) if (heading[order[r]] == headings[s]) print_row(order[r], "")
    }
    print "\n</details>"
}

function open_table(heading, last) {
    printf "\n#### %s%s\n\n", heading, direction(heading)
    printf "| what | ours | %s | ratio |%s\n|---|--:|--:|--:|%s\n", other[heading], last,
        last == "" ? "" : "---|"
}

function direction(heading) {
    if (heading ~ /^(Rates|The floor|Messages|Replay)/) return " (more is better)"
    if (heading ~ /^(Server|99th|Memory|Pauses)/) return " (less is better)"
}

# `last` is what comes behind the ratio.
function print_row(row, last,    ratio, lengthy) {
    ratio = ratio_of(row)
    lengthy = ratio == "" ? "–" : "**" ratio "**" (size > 1 ? sprintf(" (%.2f–%.2f)", low, high) : "")
    printf "| %s | %s | %s | %s |%s\n", title[row], cell(row, "ours"), cell(row, "other"), lengthy, last
}

# As it is printed, and so it is judged: what is shown as 1.00 must not fail for being 0.998. A ratio
# is taken within a round, where both had the same weather. Sets size, low and high.
function ratio_of(row,    i, ratio) {
    for (i = 1; i <= rounds; i++)
        if (value[row, "ours", i] != "" && value[row, "other", i] > 0)
            ratios[row, "of", i] = value[row, "ours", i] / value[row, "other", i]
    ratio = median(ratios, row, "of")
    return ratio == "" ? "" : sprintf("%.2f", ratio)
}

# The median of samples[row, side, 1..rounds], or ""; sets size, low and high.
function median(samples, row, side,    i, j, x, list) {
    size = 0
    for (i = 1; i <= rounds; i++) {
        if (!((row, side, i) in samples) || samples[row, side, i] == "") continue
        x = samples[row, side, i] + 0
        for (j = size++; j > 0 && list[j] > x; j--) list[j + 1] = list[j]
        list[j + 1] = x
    }
    if (!size) return ""
    low = list[1]
    high = list[size]
    return size % 2 ? list[(size + 1) / 2] : (list[size / 2] + list[size / 2 + 1]) / 2
}

function cell(row, side,    x, seconds) {
    x = median(value, row, side)
    if (x == "") return "failed"
    seconds = median(cpu, row, side)
    return number(x, unit[row]) (seconds == "" ? "" : sprintf(" · %.2f s", seconds))
}

function number(x, unit) {
    if (unit == "/s") {
        if (x >= 1e6) return sprintf("%.2f M/s", x / 1e6)
        return sprintf(x >= 1e4 ? "%.0f k/s" : "%.1f k/s", x / 1e3)
    }
    if (unit == "B") return x >= 1024 ? sprintf("%.1f KiB", x / 1024) : sprintf("%.0f B", x)
    if (unit == "") return sprintf("%.2f", x)
    return sprintf(x >= 100 ? "%.0f %s" : x >= 10 ? "%.1f %s" : "%.2f %s", x, unit)
}

function judge(row,    ratio, what, sign, goal, x, text, good) {
    ratio = ratio_of(row)
    what = target[row] ~ /^ours/ ? "ours" : "ratio"
    sign = target[row] ~ />=/ ? "≥" : "≤"
    goal = substr(target[row], length(what) + 3)
    text = what == "ours" ? "ours " sign " " number(goal + 0, unit[row]) : sign " " goal
    if (quick != "") return text
    x = what == "ours" ? median(value, row, "ours") : ratio
    good = x != "" && (sign == "≥" ? x + 0 >= goal + 0 : x + 0 <= goal + 0)
    judged++
    met += good
    if (!good) missed = missed "\n- " heading[row] ": " title[row] ": " cell(row, "ours") ", ratio " \
        (ratio == "" ? "unknown" : ratio) ", target " text
    return text (good ? " ✓" : " ✗")
}
